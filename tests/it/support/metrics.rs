//! What `/metrics` says.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) samples: Vec<Sample>,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Metrics {
    /// Reads the Prometheus text format.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(sample).collect() }
    }

    /// The sum over every series of `name` that carries these labels; 0 if there is none.
    ///
    /// `name` may leave out the prefix that all our metrics share.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name)
            .filter(|sample| {
                labels.iter().all(|(key, value)| {
                    sample.labels.get(*key).is_some_and(|actual| actual == value)
                })
            })
            .map(|sample| sample.value)
            .sum()
    }

    /// Every series of `name`.
    pub(crate) fn of<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m Sample> {
        self.samples.iter().filter(move |sample| {
            let prefix = sample.name.strip_suffix(name);
            prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('_'))
        })
    }

    /// How many series there are, to see that requests add none.
    pub(crate) fn series(&self) -> usize {
        self.samples.len()
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = match line.rsplit_once("} ") {
        Some((series, value)) => (series, value),
        None => line.split_once(' ').unwrap_or_else(|| panic!("no value: {line}")),
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value = value.split(' ').next().unwrap_or_default();
    let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
    Sample { name: name.to_owned(), labels: parse_labels(labels), value }
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => {}
                },
                _ => value.push(c),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        text = &rest[end..];
    }
    labels
}

#[test]
fn a_scrape_is_read_with_its_labels() {
    let metrics = Metrics::parse(
        "# HELP gateway_requests_total Requests.\n\
         # TYPE gateway_requests_total counter\n\
         gateway_requests_total{route=\"a\",status_class=\"2xx\"} 3\n\
         gateway_requests_total{route=\"b \\\"c\\\"} \",status_class=\"2xx\"} 4\n\
         gateway_up 1\n",
    );
    assert_eq!(metrics.series(), 3);
    assert_eq!(metrics.sum("requests_total", &[]), 7.0);
    assert_eq!(metrics.sum("gateway_requests_total", &[("route", "b \"c\"} ")]), 4.0);
    assert_eq!(metrics.sum("ests_total", &[]), 0.0, "a name is not cut inside a word");
    assert_eq!(metrics.sum("up", &[]), 1.0);
}
