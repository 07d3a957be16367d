"""Vector memory banks in PostgreSQL with pgvector. This module holds the spec and is fast to import."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

PGVECTOR = RemoteProviderSpec(
    api=Api.memory,
    provider_type="remote::pgvector",
    config_class="llamastack_provider_pgvector.config:PgvectorConfig",
    factory="llamastack_provider_pgvector.memory:get_adapter_impl",
    description="Vector memory banks in PostgreSQL with pgvector",
    api_dependencies=(Api.inference,),
    optional_api_dependencies=("models",),
    capabilities=Capabilities(
        delete_documents="supported",
        insert_documents="supported",
        query_documents="supported",
        vector_search="supported",
        keyword_search="supported",
        hybrid_search="supported",
        filters="supported",
        registration="supported",
        ttl="supported",
        unregister="supported",
    ),
)

__all__ = ["PGVECTOR"]
