//! Reads what `/metrics` says, strictly: OpenMetrics 1.0 or the Prometheus text format 0.0.4, told apart by the end.

#![allow(clippy::float_cmp, reason = "counts are whole")]

use std::collections::{BTreeMap, BTreeSet};

/// What a reader of OpenMetrics asks for.
pub(crate) const OPEN: &str = "application/openmetrics-text; version=1.0.0";

/// One scrape that holds to the rules.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// By the name of the family as the classic form has it: its type and help.
    families: BTreeMap<String, Family>,
    /// By name and labels as written.
    samples: BTreeMap<String, f64>,
}

#[derive(Debug)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

impl Exposition {
    pub(crate) fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        self.samples.iter().map(|(name, value)| (name.as_str(), *value))
    }

    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.find(name).unwrap_or_else(|| panic!("no {name} among {:#?}", self.samples.keys()))
    }

    /// By name: type and labels, without those of a histogram's buckets.
    pub(crate) fn families(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let said = |(name, family): (&String, &Family)| (name.clone(), (family.kind.clone(), family.labels.clone()));
        self.families.iter().map(said).collect()
    }

    /// What counts rose, and by how much. Those of the process itself are left out, those of the files, and how long things
    /// took.
    pub(crate) fn rose_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let is_count = |name: &str| {
            let bare = name.split('{').next().unwrap_or_default();
            bare.starts_with("narrows_")
                && bare != "narrows_reloads_total"
                && (bare.ends_with("_total") || bare.ends_with("_seconds_count"))
        };
        let rose = self.samples().filter(|(name, _)| is_count(name)).filter_map(|(name, value)| {
            let by = value - before.find(name).unwrap_or_default();
            assert!(by >= 0.0 && by.fract() == 0.0, "{name} rose by {by}");
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            let by = by as u64;
            (by > 0).then(|| (name.to_owned(), by))
        });
        rose.collect()
    }
}

/// Reads the text, and fails the test where it breaks a rule.
#[track_caller]
pub(crate) fn parse(text: &str) -> Exposition {
    let is_open = text.ends_with("\n# EOF\n");
    let mut said = Exposition::default();
    // The family that lines belong to now: its name as declared, its type, whether it has had a sample.
    let mut family: Option<(String, String)> = None;
    let mut helped: Option<String> = None;
    let mut histogram: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && help.len() > 5, "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped.take().as_deref(), Some(name), "help comes first");
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            assert!(is_open || kind != "info", "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter" && !is_open, "{line}");
            let suffix = match kind {
                "counter" if is_open => "_total",
                "info" => "_info",
                _ => "",
            };
            let full = format!("{name}{suffix}");
            let known = said.families.insert(full, Family { kind: kind.to_owned(), labels: BTreeSet::new() });
            assert!(known.is_none(), "{name} is declared twice");
            family = Some((name.to_owned(), kind.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(is_open && name.ends_with(&format!("_{unit}")), "{line}");
            assert_eq!(family.as_ref().unwrap().0, name, "{line}");
        } else if line == "# EOF" {
            assert!(is_open && text.matches("# EOF").count() == 1);
        } else {
            let (name, kind) = family.as_ref().unwrap_or_else(|| panic!("no family for {line}"));
            sample(&mut said, line, name, kind, is_open, &mut histogram);
        }
    }
    for (series, buckets) in histogram {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series}: {buckets:?}");
        let (last, all) = *buckets.last().unwrap();
        assert!(last.is_infinite(), "{series}");
        let (name, labels) = series.split_once("_bucket").unwrap();
        assert_eq!(said.value(&format!("{name}_count{labels}")), all, "{series}");
        assert!(said.value(&format!("{name}_sum{labels}")) >= 0.0);
    }
    said
}

fn sample(
    said: &mut Exposition,
    line: &str,
    family: &str,
    kind: &str,
    is_open: bool,
    histogram: &mut BTreeMap<String, Vec<(f64, f64)>>,
) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, labels) = series
        .split_once('{')
        .map_or((series, ""), |(name, labels)| (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))));
    let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
    let wanted: &[&str] = match kind {
        "counter" if is_open => &["_total"],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    assert!(wanted.contains(&suffix), "{line}");
    assert!(value >= 0.0 && value.is_finite(), "{line}");
    assert!(kind != "info" || value == 1.0, "{line}");
    let (mut le, mut others) = (None, Vec::new());
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').unwrap();
        assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b)), "{line}");
        if key == "le" {
            le = Some(value.parse::<f64>().unwrap());
        } else {
            others.push(label);
            let full = said.families.keys().find(|full| full.starts_with(family) && name.starts_with(full.as_str()));
            let full = full.cloned().unwrap();
            said.families.get_mut(&full).unwrap().labels.insert(key.to_owned());
        }
    }
    assert_eq!(le.is_some(), suffix == "_bucket", "{line}");
    if let Some(le) = le {
        let labels = if others.is_empty() { String::new() } else { format!("{{{}}}", others.join(",")) };
        histogram.entry(format!("{name}{labels}")).or_default().push((le, value));
    }
    assert!(said.samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
}
