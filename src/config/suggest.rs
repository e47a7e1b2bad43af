//! "Did you mean": the known word nearest to one that is not.

/// The word of `known` that `word` is most likely a slip of.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(LEN_MAX + 1).map(simplified).collect();
    if word.len() > LEN_MAX {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (slips_between(&word, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Upper case and a dash for an underscore are no slips worth counting.
fn simplified(character: char) -> char {
    match character {
        '-' => '_',
        other => other.to_ascii_lowercase(),
    }
}

/// Characters to insert, drop, replace or swap with their neighbour (optimal string alignment).
fn slips_between(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().map(simplified).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=candidate.len()).collect();
    for (row, from) in word.iter().enumerate() {
        let mut this = vec![row + 1];
        for (column, to) in candidate.iter().enumerate() {
            let replaced = last[column] + usize::from(from != to);
            let mut slips = replaced.min(last[column + 1] + 1).min(this[column] + 1);
            let swapped = row > 0 && column > 0 && word[row - 1] == *to && *from == candidate[column - 1];
            if swapped {
                slips = slips.min(before_last[column - 1] + 1);
            }
            this.push(slips);
        }
        before_last = std::mem::replace(&mut last, this);
    }
    last[candidate.len()]
}

/// Longer words resemble nothing known, and need not be compared.
const LEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_recognised() {
        #[track_caller]
        fn check(word: &str, expected: Option<&str>) {
            let known = ["servers", "affinity", "timeouts", "sse", "response_head"];
            assert_eq!(nearest(word, known), expected, "word: {word:?}");
        }

        check("server", Some("servers"));
        check("Servers", Some("servers"));
        check("sevrers", Some("servers"));
        check("timeout", Some("timeouts"));
        check("time_outs", Some("timeouts"));
        check("response-head", Some("response_head"));
        check("afinitty", Some("affinity"));
        check("see", Some("sse"));

        check("", None);
        check("balance", None);
        check("ssl_certificate", None);
        check(&"s".repeat(10_000), None);
    }
}
