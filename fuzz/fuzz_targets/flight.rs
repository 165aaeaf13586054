#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| canary_bot::fuzz::flight(bytes));
