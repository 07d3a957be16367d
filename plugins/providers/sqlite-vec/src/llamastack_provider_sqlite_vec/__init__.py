"""Vector and keyword banks in one SQLite file. This module holds the spec and is fast to import."""

from llamastack.provider import Api, Capabilities, InlineProviderSpec

SQLITE_VEC = InlineProviderSpec(
    api=Api.memory,
    provider_type="sqlite-vec",
    config_class="llamastack_memory_kit.sqlite.memory:SqliteConfig",
    factory="llamastack_provider_sqlite_vec.memory:get_provider_impl",
    description="Vector and keyword banks in one SQLite file, without a server",
    api_dependencies=(Api.inference,),
    optional_api_dependencies=("models",),
    capabilities=Capabilities(
        delete_documents="supported",
        filters="supported",
        hybrid_search="supported",
        insert_documents="supported",
        keyword_search="supported",
        query_documents="supported",
        registration="supported",
        ttl="supported",
        unregister="supported",
        vector_search="supported",
    ),
)

__all__ = ["SQLITE_VEC"]
