//! `traceparent`: what an agent says of its own span (W3C Trace Context Level 1 §3.2).
//!
//! The library's reader takes the first of several, spaces around it and signs in its numbers; one that was not read whole
//! is not rewritten here, so this one is exact.

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use super::TRACEPARENT;

/// Version 00: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const BYTES: usize = 55;
const VERSION_FORBIDDEN: u8 = 0xff;
const SAMPLED: u8 = 0x01;
/// The flags that have a meaning: sampled, and (Level 2) that the trace's id is random. Others go on as zero.
const KNOWN: u8 = SAMPLED | 0x02;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    flags: u8,
}

impl Parent {
    /// Reads the one `traceparent` of a request. Several, or one that is not valid, are none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value.as_bytes()) }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (text, rest) = text.split_at_checked(BYTES)?;
        let field = |from, to| number(text.get(from..to)?);
        let version = u8::try_from(field(0, 2)?).ok()?;
        // A later version may have more, after another dash.
        let ends = if version == 0 { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
        let is_dashed = [2, 35, 52].into_iter().all(|at| text.get(at) == Some(&b'-'));
        let trace_id = TraceId::from(field(3, 35)?);
        let span_id = SpanId::from(u64::try_from(field(36, 52)?).ok()?);
        let flags = u8::try_from(field(53, 55)?).ok()?;
        let is_valid = ends
            && is_dashed
            && version != VERSION_FORBIDDEN
            && trace_id != TraceId::INVALID
            && span_id != SpanId::INVALID;
        is_valid.then_some(Self { trace_id, span_id, flags: flags & KNOWN })
    }

    /// Whether the agent records the trace.
    pub(super) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, with another span as the parent of what follows; in the version that is written here.
    pub(super) fn replaced_by(&self, span_id: SpanId) -> HeaderValue {
        let text = format!("00-{}-{span_id}-{:02x}", self.trace_id, self.flags);
        // Digits and dashes are always a value.
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Lower-case hexadecimal digits, as the one spelling is.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    fn parse(text: &str) -> Option<Parent> {
        Parent::parse(text.as_bytes())
    }

    #[test]
    fn the_spellings_of_the_standard_are_read_and_their_neighbours_are_not() {
        let child = SpanId::from(0xa);
        for (text, passed) in [
            (format!("00-{IDS}-01"), "01"),
            (format!("00-{IDS}-00"), "00"),
            (format!("00-{IDS}-03"), "03"),
            (format!("00-{IDS}-fd"), "01"),
            (format!("01-{IDS}-01"), "01"),
            (format!("cc-{IDS}-01-what-the-future-will-be-like"), "01"),
            (format!("fe-{IDS}-01-"), "01"),
        ] {
            let parent = parse(&text).unwrap_or_else(|| panic!("{text}"));
            let written = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-000000000000000a-{passed}");
            assert_eq!(parent.replaced_by(child), written, "{text}");
            assert_eq!(parent.is_sampled(), passed != "00");
        }
        for text in [
            String::new(),
            format!("00-{IDS}"),
            format!("00-{IDS}-1"),
            format!("00-{IDS}-01-"),
            format!("00-{IDS}-01-more"),
            format!("00-{IDS}-011"),
            format!("01-{IDS}-01."),
            format!("ff-{IDS}-01"),
            format!("0-{IDS}-01"),
            format!(" 00-{IDS}-01"),
            format!("00-{IDS}-+1"),
            format!("00-{IDS}-0g"),
            format!("00_{IDS}-01"),
            format!("00-{IDS}_01"),
            format!("00-{}-01", IDS.to_ascii_uppercase()),
            format!("00-{}-01", IDS.replace('-', "+")),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
        ] {
            assert_eq!(parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn several_are_none() {
        let one = HeaderValue::from_str(&format!("00-{IDS}-01")).expect("a value");
        let mut headers = HeaderMap::new();
        assert_eq!(Parent::of(&headers), None);
        headers.append(TRACEPARENT, one.clone());
        assert!(Parent::of(&headers).is_some());
        headers.append(TRACEPARENT, one);
        assert_eq!(Parent::of(&headers), None);
    }

    proptest! {
        /// What is read here, the library reads in the same way; and what is written here comes back.
        #[test]
        fn a_second_reader_agrees(text in "(00|0[0-9a-g]|ff)-[0-9a-f]{31}[0-9a-g]-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,2})?") {
            let Some(parent) = parse(&text) else { return Ok(()) };
            let said = HashMap::from([("traceparent".to_owned(), text)]);
            let context = TraceContextPropagator::new().extract(&said);
            let other = context.span().span_context().clone();
            prop_assert_eq!((other.trace_id(), other.span_id()), (parent.trace_id, parent.span_id));
            prop_assert_eq!(other.is_sampled(), parent.is_sampled());
            let again = parent.replaced_by(parent.span_id);
            prop_assert_eq!(Parent::parse(again.as_bytes()), Some(parent));
        }
    }
}
