"""The memory API: vector, keyword, keyvalue and graph banks in one SQLite file."""
