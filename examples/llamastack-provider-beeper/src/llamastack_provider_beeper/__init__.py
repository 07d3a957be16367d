"""Speech by beeps."""

from llamastack.provider import Capabilities, InlineProviderSpec

BEEPER = InlineProviderSpec(
    api="speech",
    provider_type="beeper",
    description="A beep for each word",
    config_class="llamastack_provider_beeper.config:BeeperConfig",
    factory="llamastack_provider_beeper.speech:get_provider_impl",
    capabilities=Capabilities(
        marks="supported",
        registration="supported",
        synthesize="supported",
        unregister="supported",
    ),
)
