"""Vector memory banks in Qdrant. This module holds the spec and is fast to import."""

from llamastack.provider import Api, Capabilities, RemoteProviderSpec

QDRANT = RemoteProviderSpec(
    api=Api.memory,
    provider_type="remote::qdrant",
    config_class="llamastack_provider_qdrant.config:QdrantConfig",
    factory="llamastack_provider_qdrant.memory:get_adapter_impl",
    description="Vector memory banks in Qdrant, embedded or on a server",
    api_dependencies=(Api.inference,),
    optional_api_dependencies=("models",),
    single_process=("path", "location"),
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

__all__ = ["QDRANT"]
