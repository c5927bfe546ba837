//! See `datahub_gateway::fuzzing::config_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    datahub_gateway::fuzzing::config_text(data);
});
