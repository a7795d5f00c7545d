//! The descriptors of a job server (GNU make's or Cargo's), as the environment announces them.
//!
//! A tool that runs several jobs itself asks there for permission, so it must have them wherever it runs.
//! Job servers that are named pipes (`fifo:PATH`) need nothing passed.

/// The descriptors that the value of `MAKEFLAGS` or `CARGO_MAKEFLAGS` announces: reading, writing.
pub fn descriptors(flags: &[u8]) -> Option<[i32; 2]> {
    // The last one counts, as in make.
    flags.split(|&b| b == b' ').rev().find_map(|word| {
        let value =
            word.strip_prefix(b"--jobserver-auth=").or_else(|| word.strip_prefix(b"--jobserver-fds="))?;
        let (read, write) = std::str::from_utf8(value).ok()?.split_once(',')?;
        // make says so with negative numbers where a job must not take part.
        let number = |text: &str| text.parse().ok().filter(|&n: &i32| n >= 0);
        Some([number(read)?, number(write)?])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known_and_the_last_counts() {
        let cases: [(&[u8], Option<[i32; 2]>); 10] = [
            (b"", None),
            (b"-j8", None),
            (b" -j8 --jobserver-auth=3,4", Some([3, 4])),
            (b"-j --jobserver-fds=8,9 --jobserver-auth=10,11", Some([10, 11])),
            (b"kw --jobserver-fds=5,6 -- CC=gcc", Some([5, 6])),
            (b"--jobserver-auth=fifo:/tmp/GMfifo1", None),
            (b"--jobserver-auth=-2,-2", None),
            (b"--jobserver-auth=3", None),
            (b"--jobserver-auth=3,4x", None),
            (b"\xff --jobserver-auth=3,4", Some([3, 4])),
        ];
        for (flags, expected) in cases {
            assert_eq!(descriptors(flags), expected, "{:?}", String::from_utf8_lossy(flags));
        }
    }
}
