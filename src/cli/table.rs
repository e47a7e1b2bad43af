//! Columns for people: as wide as what is in them. Pure.

/// `rows` below `head`, with two spaces between columns and `indent` before the first. Columns whose heads begin
/// with `>` are numbers, and stand on the right.
pub(super) fn table(indent: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let is_number: Vec<_> = head.iter().map(|name| name.starts_with('>')).collect();
    let head: Vec<_> = head.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in all() {
        let cell = |((cell, width), is_number): ((&String, &usize), &bool)| match is_number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        };
        let cells: Vec<_> = row.iter().zip(&widths).zip(&is_number).map(cell).collect();
        text.push_str(format!("{indent}{}", cells.join("  ")).trim_end());
        text.push('\n');
    }
    text
}

/// Seconds, as somebody says them: `59s`, `2m 5s`, `3h 0m`, `2d 4h`.
pub(super) fn time(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is capped at both ends")]
    let seconds = seconds.clamp(0.0, 1e15) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows =
            [vec!["a".to_owned(), "1000".to_owned(), "é".to_owned()], vec!["longer".into(), "1".into(), "f".into()]];
        let expected = "  NAME    OPEN  X\n  a       1000  é\n  longer     1  f\n";
        assert_eq!(table("  ", &["NAME", ">OPEN", "X"], &rows), expected);
        assert_eq!(table("", &["A"], &[]), "A\n");
    }

    #[test]
    fn a_time_has_two_units() {
        for (seconds, expected) in
            [(0.9, "0s"), (59.9, "59s"), (125.0, "2m 5s"), (10_800.0, "3h 0m"), (187_200.0, "2d 4h"), (-1.0, "0s")]
        {
            assert_eq!(time(seconds), expected);
        }
    }
}
