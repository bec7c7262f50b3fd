//! The two forms of `/metrics`: OpenMetrics 1.0, and the Prometheus text format 0.0.4 for whoever asks for that.

use std::fmt::{self, Write as _};

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// How `/metrics` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    OpenMetrics,
    Classic,
}

impl Form {
    /// What the reader would rather have; the classic form, which people can read, where nothing is said.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let (mut open, mut classic) = (0_u16, 0_u16);
        let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in ranges.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_ours) = (1000, true);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = thousandths(value.trim()),
                    "version" => is_ours = value.trim().trim_matches('"') == "1.0.0",
                    _ => {}
                }
            }
            match &*name {
                "application/openmetrics-text" if is_ours => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => classic = classic.max(quality),
                _ => {}
            }
        }
        if open > 0 && open >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What the collector says, in this form.
    pub(super) fn write(self, collector: impl Collector) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(collector));
        let mut open = String::new();
        text::encode(&mut open, &registry)?;
        Ok(match self {
            Self::OpenMetrics => open,
            Self::Classic => classic(&open),
        })
    }
}

/// A weight of RFC 9110 §12.4.2 in thousandths; one that does not read is none.
fn thousandths(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    match (whole, digits) {
        ("1", true) => 1000,
        ("0", true) => format!("{part:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

/// Families are named as their samples are, there is no unit, no information, and no end.
fn classic(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                let _ = writeln!(out, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_form_is_the_one_asked_for() {
        let wanted =
            |accept: &'static str| Form::wanted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
        // Prometheus 2.42, and 3.
        let old = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                   text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for open in
            [old, new, "application/openmetrics-text", "Application/OpenMetrics-Text; Version=\"1.0.0\"; q=0.001"]
        {
            assert_eq!(wanted(open), Form::OpenMetrics, "{open}");
        }
        for other in [
            "*/*",
            "text/plain",
            "text/html, */*;q=0.1",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0.4, text/plain;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text-x",
        ] {
            assert_eq!(wanted(other), Form::Classic, "{other}");
        }
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Classic);
    }

    #[test]
    fn the_classic_form_names_families_as_their_samples() {
        let open = "# HELP a A.\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n# HELP b B.\n# TYPE b info\nb_info 1\n\
                    # HELP c_seconds C.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\nc_seconds 2\n# EOF\n";
        let other = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n# HELP b_info B.\n\
                     # TYPE b_info gauge\nb_info 1\n# HELP c_seconds C.\n# TYPE c_seconds gauge\nc_seconds 2\n";
        assert_eq!(classic(open), other);
    }
}
