//! Records made up by libFuzzer. See `checks/records.rs`.
#![no_main]

#[path = "checks/records.rs"]
mod records;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|made_up: &[u8]| {
    records::check(made_up);
});
