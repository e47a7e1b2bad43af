//! Durations and sizes: a whole number and a unit, nothing implied.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Share;
use super::mistakes::quoted;

/// Reads a duration such as `15s`; it must lie in `range`.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn duration_within(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let milliseconds = duration(text)?;
    let duration = milliseconds.map(Duration::from_millis);
    duration.filter(|it| range.contains(it)).ok_or_else(|| {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        format!("{} is out of range; write {least} to {most}", quoted(text))
    })
}

/// Reads a size in bytes such as `16KiB`; it must lie in `range`.
pub(super) fn size_within(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
    let bytes = size(text)?.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|it| range.contains(it)).ok_or_else(|| {
        let (least, most) = (show_size(*range.start()), show_size(*range.end()));
        format!("{} is out of range; write {least} to {most}", quoted(text))
    })
}

/// Reads a share such as `1%` or `0.05%`.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(super) fn share(text: &str) -> Result<Share, String> {
    let shown = quoted(text);
    let number = text.strip_suffix('%').ok_or_else(|| {
        format!("{shown} is not a share; write a number and a percent sign, together, such as 1% or 0.05%")
    })?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) {
        return Err(format!(
            "{shown} is not a share; write a number in front of the percent sign, such as 1% or 0.05%"
        ));
    }
    if part.len() > SHARE_DIGITS {
        return Err(format!("{shown} is too fine; write at most {SHARE_DIGITS} digits behind the point"));
    }
    // One per cent is 10,000 millionths.
    let millionths = format!("{whole}{part:0<SHARE_DIGITS$}").parse().ok().and_then(Share::new);
    millionths.ok_or_else(|| format!("{shown} is out of range; write 0% to 100%"))
}

/// Behind the point of a percentage, so that it is a whole number of millionths.
const SHARE_DIGITS: usize = 4;

/// Milliseconds; `None` for more than there are.
fn duration(text: &str) -> Result<Option<u64>, String> {
    let Some((digits, unit)) = split(text) else {
        return Err(format!(
            "{} is not a duration; write a number and a unit such as 15s ({DURATION_UNITS})",
            quoted(text)
        ));
    };
    let shown = quoted(text);
    match DURATIONS.iter().find(|(name, _)| *name == unit) {
        Some((_, milliseconds)) => Ok(times(digits, *milliseconds)),
        None if unit.is_empty() => {
            Err(format!("{shown} has no unit; write it with one, such as {}s ({DURATION_UNITS})", cut(digits)))
        }
        None if unit.starts_with('.') => {
            Err(format!("{shown} is not a whole number; take a smaller unit, such as 1500ms for 1.5s"))
        }
        None if unit.contains(|character: char| character.is_ascii_digit()) => {
            Err(format!("{shown} has more than one unit; write it in one, such as 90m for 1h30m"))
        }
        None => Err(unknown_unit(&shown, unit, DURATION_UNITS)),
    }
}

/// Bytes; `None` for more than there are.
fn size(text: &str) -> Result<Option<u64>, String> {
    let Some((digits, unit)) = split(text) else {
        return Err(format!("{} is not a size; write a number and a unit such as 16KiB ({SIZE_UNITS})", quoted(text)));
    };
    let shown = quoted(text);
    if let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) {
        return Ok(times(digits, *bytes));
    }
    let digits = cut(digits);
    match unit.to_ascii_lowercase().as_str() {
        "" => Err(format!("{shown} has no unit; write it with one, such as {digits}B ({SIZE_UNITS})")),
        "b" => Err(format!("{shown} has the unit {unit:?}; write {digits}B")),
        "k" | "kb" | "kib" => Err(format!("{shown} leaves open whether 1000 or 1024 is meant; write {digits}KiB")),
        "m" | "mb" | "mib" => Err(format!("{shown} leaves open whether 1000 or 1024 is meant; write {digits}MiB")),
        _ if unit.starts_with('.') => {
            Err(format!("{shown} is not a whole number; take a smaller unit, such as 1536B for 1.5KiB"))
        }
        _ => Err(unknown_unit(&shown, unit, SIZE_UNITS)),
    }
}

fn unknown_unit(shown: &str, unit: &str, units: &str) -> String {
    let unit = quoted(unit);
    format!("{shown} has the unknown unit {unit}; write number and unit together ({units})")
}

/// Splits behind the digits, of which there must be one.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    (!digits.is_empty()).then_some((digits, unit))
}

fn times(digits: &str, factor: u64) -> Option<u64> {
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The digits as they fit into a message.
fn cut(digits: &str) -> &str {
    &digits[..digits.len().min(20)]
}

/// The shortest way to write `duration`, a whole number of milliseconds.
fn show_duration(duration: Duration) -> String {
    show(duration.as_millis(), &DURATIONS)
}

fn show_size(bytes: usize) -> String {
    show(bytes as u128, &SIZES)
}

fn show(amount: u128, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| amount.is_multiple_of(u128::from(*factor));
    match units.iter().rev().find(fits) {
        Some((name, factor)) if amount > 0 => format!("{}{name}", amount / u128::from(*factor)),
        _ => format!("0{}", units[0].0),
    }
}

/// Units and their milliseconds, the smallest first.
const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const DURATION_UNITS: &str = "units: ms, s, m, h, d";

/// Units and their bytes, the smallest first.
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
const SIZE_UNITS: &str = "units: B, KiB, MiB, GiB";

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn durations_have_a_unit() {
        #[track_caller]
        fn check(text: &str, expected: Result<u64, &str>) {
            let range = Duration::from_millis(1)..=30 * DAY;
            let actual = duration_within(text, &range);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(actual, expected.map_err(str::to_owned), "text: {text:?}");
        }

        check("1ms", Ok(1));
        check("250ms", Ok(250));
        check("15s", Ok(15_000));
        check("1m", Ok(60_000));
        check("2m", Ok(120_000));
        check("1h", Ok(3_600_000));
        check("1d", Ok(86_400_000));
        check("30d", Ok(2_592_000_000));
        check("007s", Ok(7_000));

        let out_of_range = "is out of range; write 1ms to 30d";
        check("0s", Err(&format!("\"0s\" {out_of_range}")));
        check("31d", Err(&format!("\"31d\" {out_of_range}")));
        check("99999999999999999999d", Err(&format!("\"99999999999999999999d\" {out_of_range}")));
        check("18446744073709551615h", Err(&format!("\"18446744073709551615h\" {out_of_range}")));

        let units = "(units: ms, s, m, h, d)";
        check("15", Err(&format!("\"15\" has no unit; write it with one, such as 15s {units}")));
        check("15.0", Err("\"15.0\" is not a whole number; take a smaller unit, such as 1500ms for 1.5s"));
        check("1h30m", Err("\"1h30m\" has more than one unit; write it in one, such as 90m for 1h30m"));
        let together = "write number and unit together (units: ms, s, m, h, d)";
        check("15 s", Err(&format!("\"15 s\" has the unknown unit \" s\"; {together}")));
        check("15S", Err(&format!("\"15S\" has the unknown unit \"S\"; {together}")));
        check("2min", Err(&format!("\"2min\" has the unknown unit \"min\"; {together}")));
        for text in ["", "s", "-1s", "soon", " 1s", "١s"] {
            let message = format!("{text:?} is not a duration; write a number and a unit such as 15s {units}");
            check(text, Err(&message));
        }
    }

    #[test]
    fn zero_is_in_range_where_the_range_says_so() {
        let range = Duration::ZERO..=DAY;
        assert_eq!(duration_within("0s", &range), Ok(Duration::ZERO));
        assert_eq!(duration_within("2d", &range), Err("\"2d\" is out of range; write 0ms to 1d".to_owned()));
    }

    #[test]
    fn shares_are_per_cent() {
        #[track_caller]
        fn check(text: &str, expected: Result<u32, &str>) {
            let actual = share(text).map(Share::millionths);
            assert_eq!(actual, expected.map_err(str::to_owned), "text: {text:?}");
        }

        check("0%", Ok(0));
        check("1%", Ok(10_000));
        check("100%", Ok(1_000_000));
        check("100.0000%", Ok(1_000_000));
        check("0.0001%", Ok(1));
        check("12.5%", Ok(125_000));
        check("007%", Ok(70_000));
        check("100.0001%", Err("\"100.0001%\" is out of range; write 0% to 100%"));
        check("99999999999999999999%", Err("\"99999999999999999999%\" is out of range; write 0% to 100%"));
        check("0.00001%", Err("\"0.00001%\" is too fine; write at most 4 digits behind the point"));
        for text in ["1", "0.5", "", "half", "1 percent", "1‰"] {
            let right = "is not a share; write a number and a percent sign, together, such as 1% or 0.05%";
            check(text, Err(&format!("{text:?} {right}")));
        }
        for text in ["%", "-1%", "+1%", "1.%", ".5%", "1 %", "1e1%", "1.2.3%", "١%"] {
            let right = "is not a share; write a number in front of the percent sign, such as 1% or 0.05%";
            check(text, Err(&format!("{text:?} {right}")));
        }
    }

    #[test]
    fn sizes_have_a_binary_unit() {
        #[track_caller]
        fn check(text: &str, expected: Result<usize, &str>) {
            let range = 1024..=1 << 30;
            let actual = size_within(text, &range);
            assert_eq!(actual, expected.map_err(str::to_owned), "text: {text:?}");
        }

        check("4096B", Ok(4096));
        check("16KiB", Ok(16 << 10));
        check("1MiB", Ok(1 << 20));
        check("1GiB", Ok(1 << 30));

        check("1023B", Err("\"1023B\" is out of range; write 1KiB to 1GiB"));
        check("17179869184GiB", Err("\"17179869184GiB\" is out of range; write 1KiB to 1GiB"));
        check(
            "4096",
            Err("\"4096\" has no unit; write it with one, such as 4096B \
                 (units: B, KiB, MiB, GiB)"),
        );
        let open = "leaves open whether 1000 or 1024 is meant";
        check("16k", Err(&format!("\"16k\" {open}; write 16KiB")));
        check("16K", Err(&format!("\"16K\" {open}; write 16KiB")));
        check("16kB", Err(&format!("\"16kB\" {open}; write 16KiB")));
        check("16kib", Err(&format!("\"16kib\" {open}; write 16KiB")));
        check("1M", Err(&format!("\"1M\" {open}; write 1MiB")));
        check("1MB", Err(&format!("\"1MB\" {open}; write 1MiB")));
        check("4096b", Err("\"4096b\" has the unit \"b\"; write 4096B"));
        check("1.5KiB", Err("\"1.5KiB\" is not a whole number; take a smaller unit, such as 1536B for 1.5KiB"));
        check(
            "1 MiB",
            Err("\"1 MiB\" has the unknown unit \" MiB\"; write number and unit together \
                 (units: B, KiB, MiB, GiB)"),
        );
        for text in ["", "KiB", "-1KiB", "big"] {
            let message = format!(
                "{text:?} is not a size; write a number and a unit such as 16KiB \
                 (units: B, KiB, MiB, GiB)"
            );
            check(text, Err(&message));
        }
    }
}
