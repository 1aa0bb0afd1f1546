#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zerobubble_fuzz::plan::text(input));
