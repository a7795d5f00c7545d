//! Command lines made up by libFuzzer. See `checks/arguments.rs`.
#![no_main]

#[path = "checks/arguments.rs"]
mod arguments;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|made_up: &[u8]| {
    arguments::check(made_up);
});
