//! Ends what a client of the hub has open when the network to it has gone silent. Looked at only while it has a stream open.

use std::rc::{Rc, Weak};

use actix_web::HttpRequest;

use crate::api::wire::{Wire, silent};
use crate::manager::hub::Link;

/// Watches the line of a request for a connection to the hub that lives on it.
pub(super) fn watch(request: &HttpRequest, link: Link) {
    watch_unless(request, link, |_| false);
}

/// The same where the client may have gone on by another line: `has_moved` says so.
pub(super) fn watch_unless(request: &HttpRequest, link: Link, has_moved: impl Fn(&Link) -> bool + 'static) {
    let wire = Wire::by(request);
    actix_web::rt::spawn(async move {
        while link.until_streams(true).await {
            tokio::select! {
                is_there = link.until_streams(false) => if !is_there { return },
                is_silent = silent(&wire) => return if is_silent { end(&wire, &link, &has_moved) },
            }
        }
    });
}

fn end(wire: &Weak<Wire>, link: &Link, has_moved: &impl Fn(&Link) -> bool) {
    if !has_moved(link) {
        tracing::info!("nobody is at the other end of a hub connection any more: its streams end");
        link.lost();
    }
    if let Some(wire) = wire.upgrade() {
        Rc::as_ref(&wire).end();
    }
}
