//! Long polling: each poll is held until there is a frame. 200 with nothing: poll again; 204: it is over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::door::{Door, Poll};
use super::identity;
use crate::api::problem::{self, Problem};
use crate::manager::hub::Link;

/// How long after the end of the line by which a client has polled last it is waited for a poll by another one.
const NEXT_LINE: Duration = Duration::from_millis(1_000);
/// Bytes of frames that a poll takes away at once.
const MOST_BYTES: usize = 256 * 1024;

/// Ends what the client had open when its poll is dropped without an answer: the client is gone.
struct Held<'a> {
    link: &'a Link,
    is_answered: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.link.lost();
        }
    }
}

/// Kept with each line (a connection of HTTP): who has polled by it last. A client that dies between two polls leaves nothing
/// but the end of its line.
#[derive(Default)]
pub struct PollsOfLine {
    last: RefCell<Option<(Link, Handle)>>,
    /// How many polls of that client had begun with its last one by this line.
    begun: Rc<Cell<usize>>,
}

impl PollsOfLine {
    /// A client polls by this line.
    fn note(&self, request: &HttpRequest, link: &Link, runtime: &Handle) {
        let is_known = self.last.borrow().as_ref().is_some_and(|(last, _)| last.is_same(link));
        self.last.replace(Some((link.clone(), runtime.clone())));
        if !is_known {
            let begun = Rc::clone(&self.begun);
            super::silence::watch_unless(request, link.clone(), move |link| link.polls_begun() != begun.get());
        }
    }
}

impl Drop for PollsOfLine {
    fn drop(&mut self) {
        let Some((link, runtime)) = self.last.take() else { return };
        let begun = link.polls_begun();
        runtime.spawn(async move {
            tokio::time::sleep(NEXT_LINE).await;
            if is_away(&link, begun) {
                link.lost();
            }
        });
    }
}

/// Whether a client has not come back since so many polls had begun. A poll that is held by another line, even from before,
/// shows that it is there.
fn is_away(link: &Link, begun: usize) -> bool {
    link.polls_begun() == begun && !link.is_polled()
}

pub(super) async fn answer(request: &HttpRequest, door: &Arc<Door>, token: &str) -> Result<HttpResponse, Problem> {
    let Poll { link, frames, opens } = door.poll(token, &identity(request))?;
    let line = request.conn_data::<PollsOfLine>();
    line.inspect(|line| line.note(request, &link, &door.runtime));
    if opens {
        // Clients begin to speak once the first poll is answered.
        return Ok(answered(String::new()));
    }
    let Ok(mut frames) = frames.try_lock() else {
        let detail = "Another poll of this connection is held; its answer brings what there is";
        return Err(Problem::new(&problem::HUB_CONNECTION_IN_USE, detail));
    };
    let mut held = Held { link: &link, is_answered: false };
    let _poll = link.poll();
    line.inspect(|line| line.begun.set(link.polls_begun()));
    let first = timeout(door.settings.poll, frames.next()).await;
    held.is_answered = true;
    let text = match first {
        Err(_) => String::new(),
        Ok(None) => {
            link.lost();
            return Ok(HttpResponse::NoContent().finish());
        }
        Ok(Some(mut text)) => {
            while text.len() < MOST_BYTES
                && let Some(more) = frames.now()
            {
                text.push_str(&more);
            }
            text
        }
    };
    Ok(answered(text))
}

fn answered(text: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::hub::audited::tests::Service;
    use crate::manager::hub::{Caller, ConnectionId, HubTimes, Opening, connect};

    #[test]
    fn a_client_whose_line_ends_is_gone_unless_it_polls_by_another_one() {
        let (link, _outgoing, _session) = connect(Opening {
            id: ConnectionId("c1".into()),
            caller: Arc::new(Caller::default()),
            service: Arc::new(Service),
            times: HubTimes::default(),
            stop: CancellationToken::new(),
            polls: true,
        });
        drop(link.poll());
        let begun = link.polls_begun();
        assert!(is_away(&link, begun), "nobody polls");
        let held = link.poll();
        assert!(!is_away(&link, link.polls_begun()), "one is held since before the line ended");
        drop(held);
        assert!(!is_away(&link, begun), "it has come by another line since");
    }
}
