//! Frames made up by libFuzzer. See `checks/frames.rs`.
#![no_main]

#[path = "checks/frames.rs"]
mod frames;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|made_up: &[u8]| {
    frames::check(made_up);
});
