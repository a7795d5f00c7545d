//! Ages as people write them: `90d`, `12h`. The configuration and the commands read the same.

use std::time::Duration;

/// Units and their lengths in seconds.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600), ("w", 7 * 24 * 3600)];

/// The age that `text` means: a whole number and a unit.
///
/// # Errors
/// What is wrong with it, and what would be right, for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is no age; write a number and s, m, h, d or w, such as 30d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    number.checked_mul(*seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_ages_and_nothing_else_is() {
        for (text, seconds) in
            [("0s", 0), ("90d", 7_776_000), (" 2 w ", 1_209_600), ("36h", 129_600), ("5m", 300)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "5", "d", "-1d", "1.5d", "1y", "1d2h", "99999999999999999999d", "18446744073709551615w"]
        {
            assert!(parse(text).is_err_and(|e| e.contains(text)), "{text}");
        }
    }
}
