//! The text format of Prometheus, as far as the tests ask.

/// The samples of one page.
pub(crate) struct Metrics(Vec<Sample>);

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(Sample::parse).collect())
    }

    /// All series: their names, labels and values.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&str, &[(String, String)], f64)> {
        self.0.iter().map(|sample| (sample.name.as_str(), sample.labels.as_slice(), sample.value))
    }

    /// The sum of every sample of this name that has these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.0.iter().filter(|sample| sample.name == name && sample.has(labels));
        samples.fold(0.0, |sum, sample| sum + sample.value)
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let label = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("no label: {line:?}"));
            (name.trim_start_matches(',').to_owned(), value.trim_matches('"').to_owned())
        };
        let labels = labels.trim_end_matches('}').split_inclusive("\",").map(|pair| label(pair.trim_end_matches(',')));
        Self { name: name.to_owned(), labels: labels.collect(), value }
    }

    fn has(&self, wanted: &[(&str, &str)]) -> bool {
        let has = |(name, value): &(&str, &str)| self.labels.iter().any(|label| label.0 == *name && label.1 == *value);
        wanted.iter().all(has)
    }
}
