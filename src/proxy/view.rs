//! What one snapshot says of one destination: looked up once, then shared by the requests of a tunnel.
//!
//! Requests clone the tunnel's own pointer to it, so that no two cores write the same counter of references.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::Authority;

use super::authenticate::Authenticated;
use super::body::Uplink;
use super::inbound::Served;
use super::live::Snapshot;
use super::metrics::ServiceSeries;
use crate::capability::BlockId;
use crate::net::pool::{PoolKey, Shelf};
use crate::request::{Scheme, Target};
use crate::service::Scrubbing;

/// See the module.
pub(super) struct View {
    snapshot: Arc<Snapshot>,
    served: Served,
    scheme: Scheme,
    named: bool,
    /// How its answers are scrubbed.
    scrubbing: Option<Scrubbing>,
    /// Connections to the destination that were made for the same holder and credential.
    shelf: Arc<Shelf<Uplink>>,
    /// The destination as the upstream reads it; always there, for a canonical target is plain ASCII.
    host: Option<HeaderValue>,
    authority: Option<Authority>,
    /// Where its requests are counted.
    series: Arc<ServiceSeries>,
}

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>, who: &Authenticated, scheme: Scheme, target: &Target) -> Self {
        let served = snapshot.served(scheme, target);
        let key = PoolKey {
            scheme,
            target: target.clone(),
            named: matches!(served, Served::Named { exact: true, .. }),
            holder: who.verified.holders().last().map_or(BlockId([0; 32]), |hop| hop.block),
            credential: served.credential().map(|name| Arc::from(name.as_str())),
            trust_epoch: snapshot.trust_epoch(),
        };
        let text = target.authority(scheme);
        let (host, authority) = (HeaderValue::from_str(&text).ok(), Authority::try_from(text).ok());
        let scrubbing = snapshot.scrubbing(&served).cloned();
        let (named, shelf) = (key.named, who.proxy.pool.shelf(&key));
        let series = who.proxy.metrics.of(&served);
        Self { snapshot, served, scheme, named, scrubbing, shelf, host, authority, series }
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Who serves the destination.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// Whether a service names the host exactly, not by a suffix and not as part of `web`.
    pub(super) fn named_exactly(&self) -> bool {
        self.named
    }

    /// How its answers are scrubbed; `None` where no secret could come back.
    pub(super) fn scrubbing(&self) -> Option<&Scrubbing> {
        self.scrubbing.as_ref()
    }

    /// Where connections to the destination are kept.
    pub(super) fn shelf(&self) -> &Shelf<Uplink> {
        &self.shelf
    }

    /// With or without TLS.
    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The value of `Host`.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Where its requests are counted, by operation.
    pub(super) fn series(&self) -> &ServiceSeries {
        &self.series
    }

    /// The value of `:authority`.
    pub(super) fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }
}
