//! See `datahub_gateway::fuzzing::api_key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    datahub_gateway::fuzzing::api_key(data);
});
