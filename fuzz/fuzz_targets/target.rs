//! See `datahub_gateway::fuzzing::target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    datahub_gateway::fuzzing::target(data);
});
