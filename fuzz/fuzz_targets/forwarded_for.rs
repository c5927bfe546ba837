//! See `datahub_gateway::fuzzing::forwarded_for`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    datahub_gateway::fuzzing::forwarded_for(data);
});
