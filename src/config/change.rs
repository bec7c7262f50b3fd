//! What a running proxy cannot take on.

use super::{Config, Listener};

/// The keys whose new values need a restart, in the order of the file; empty when the change can
/// take effect now. Everything else applies to the next request.
#[must_use]
pub fn changes_needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut note = |key, changed: bool| {
        if changed {
            keys.push(key);
        }
    };
    note("listen", old.listen != new.listen);
    // Its files may be others, and so may what is in them.
    note("tls", old.tls.is_some() != new.tls.is_some());
    // Which capability is behind a listener may change, and what is in its files.
    let places = |config: &Config| {
        let place = |listener: &Listener| {
            (listener.name.clone(), listener.listen.clone(), listener.uids.clone(), listener.transparent)
        };
        config.listeners.iter().map(place).collect::<Vec<_>>()
    };
    note("listener", places(old) != places(new));
    note("admin", old.admin != new.admin);
    note("audience", old.audience != new.audience);
    note("insecure", old.insecure != new.insecure);
    note("journal.dir", old.journal_dir != new.journal_dir);
    note("journal.durability", old.journal.durability != new.journal.durability);
    note("journal.rotate", old.journal.rotate_bytes != new.journal.rotate_bytes);
    note("journal.in_flight_max", old.journal.in_flight_max != new.journal.in_flight_max);
    note("journal.stdout", old.journal.stdout != new.journal.stdout);
    note("traces", old.traces != new.traces);
    let (was, is) = (&old.limits, &new.limits);
    note("upstream.dial", was.dial != is.dial);
    note("upstream.answer_head", was.answer_head != is.answer_head);
    note("upstream.answer_idle", was.answer_idle != is.answer_idle);
    note("limits.connections_max", was.connections_max != is.connections_max);
    note("limits.authority_tunnels_max", was.authority_tunnels_max != is.authority_tunnels_max);
    note("limits.authority_requests_max", was.authority_requests_max != is.authority_requests_max);
    note("limits.authenticate", was.authenticate != is.authenticate);
    note("limits.unread", was.unread != is.unread);
    note("limits.hops_max", was.hops_max != is.hops_max);
    note("limits.head_read", was.head_read != is.head_read);
    note("limits.client_idle", was.client_idle != is.client_idle);
    note("limits.handshake", was.handshake != is.handshake);
    note("limits.upload_idle", was.upload_idle != is.upload_idle);
    note("limits.tunnel_idle", was.tunnel_idle != is.tunnel_idle);
    note("limits.tunnel_age_max", was.tunnel_age_max != is.tunnel_age_max);
    note("limits.drain", was.drain != is.drain);
    note("limits.presentation_ttl_max", was.presentation_ttl_max != is.presentation_ttl_max);
    keys
}
