//! In the place of `src/traces` in a build without the feature `otlp`: what the proxy tells of its requests goes nowhere and
//! costs nothing.
#![expect(clippy::unused_self, clippy::unused_async, reason = "the shape of `src/traces`")]

#[path = "traces/told.rs"]
mod told;

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use rustls::RootCertStore;

use crate::config;
use crate::net::dial::Dialer;
use crate::net::trust::TrustError;

pub use told::Counts;
pub(crate) use told::Ended;

/// Why no spans can be exported: there is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {}

/// Where the spans of a proxy go: nowhere.
#[derive(Debug)]
pub struct Traces;

impl Traces {
    /// Does nothing: a configuration with `[traces]` has been refused.
    ///
    /// # Errors
    /// None.
    pub fn start(_: Option<&config::Traces>, _: &Arc<Dialer>, _: &Arc<RootCertStore>) -> Result<Self, TracesError> {
        Ok(Self)
    }

    /// Does nothing.
    ///
    /// # Errors
    /// None.
    pub fn trust(&self, _: &Arc<RootCertStore>) -> Result<(), TrustError> {
        Ok(())
    }

    /// All zero.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Does nothing.
    pub async fn finish(&self) {}

    pub(crate) fn begin(&self, _: &HeaderMap) -> Trace {
        Trace
    }

    pub(crate) fn end<'a>(&self, _: Trace, _: impl FnOnce() -> Ended<'a>) {}
}

/// The spans of one request: none.
#[derive(Debug, Default)]
pub(crate) struct Trace;

impl Trace {
    pub(crate) fn pass_on(&self, _: &mut HeaderMap) {}

    pub(crate) fn answered(&mut self, _: Option<StatusCode>) {}
}
