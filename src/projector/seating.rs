//! Gives an instance its name in the group, and keeps it: the operator's, or that of the first free seat. A seat outlives no
//! process, and its name does: who starts after a crash takes the same seat, and by it the place of the dead one, at once.
//!
//! | what happens | what follows |
//! |---|---|
//! | a process dies | its seat is free; whoever starts next removes its member from the group, and so those of all other free seats |
//! | two instances start at once, on one host or not | two seats |
//! | the session with the seat is lost | the seat is taken again, as soon as Postgres has given the lost session up |
//! | another one has it meanwhile | it joins under our name, the group fences us, and we take the next seat |
//! | the seats are kept in two databases | likewise, once for each start |
//!
//! None of this guards the rows: that is the fence's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::failure::{Backoff, Failure, Halt};
use crate::platforms::kafka::consumer::MemberName;
use crate::platforms::kafka::dead_member;
use crate::projector::context::ViewContext;
use crate::projector::supervisor;
use crate::status::Reporter;
use crate::store::seats::Seats;
use crate::store::sqlstate::{classify, describe};

/// How often it is looked whether the seat is still ours.
const LOOK: Duration = Duration::from_secs(5);

/// The name of one instance in one group.
pub struct Seating {
    context: Arc<ViewContext>,
    group: String,
    held: Mutex<Option<Held>>,
}

/// Seats of one session. Those that others have fenced us from stay ours, so that nobody else comes across them.
struct Held {
    seats: Seats,
    numbers: Vec<i32>,
    /// The seat went with the session before this one, and somebody holds it: our own dead session, which Postgres has not
    /// given up yet, or another instance, which fences us then.
    is_awaited: bool,
}

impl Seating {
    /// No name yet.
    pub fn new(context: Arc<ViewContext>, group: String) -> Self {
        Seating { context, group, held: Mutex::new(None) }
    }

    /// The name to join under at the start. Waits for Postgres as long as it takes.
    pub async fn first_name(&self) -> Result<MemberName, Halt> {
        let given = &self.context.kafka.instance_id;
        if !given.is_empty() {
            return Ok(MemberName::Given(given.clone()));
        }
        self.sit(0).await
    }

    /// The name to join under after the group has fenced us under `name`; a halt if that is the operator's.
    pub async fn next_name(&self, name: &MemberName) -> Result<MemberName, Halt> {
        match name {
            MemberName::Seat(number) => self.sit(number + 1).await,
            MemberName::Given(_) => Err(fenced(&self.group, name)),
        }
    }

    async fn sit(&self, from: i32) -> Result<MemberName, Halt> {
        let mut backoff = Backoff::default();
        let result = loop {
            match self.try_sit(from).await.map_err(Failure::wait_or_halt) {
                Ok(number) => break Ok(MemberName::Seat(number)),
                Err(Err(halt)) => break Err(halt),
                Err(Ok((waiting, reason))) => self.context.status.report(Reporter::Seat, waiting, &reason),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        };
        self.context.status.clear(Reporter::Seat);
        result
    }

    async fn try_sit(&self, from: i32) -> Result<i32, Failure> {
        let fail = |error| classify(error, None);
        let mut held = self.held.lock().await;
        // Seats go with their session: one that is lost is left to whoever has them now.
        let alive = match held.take() {
            Some(alive) if alive.seats.confirm().await.is_ok() => Some(alive),
            _ => None,
        };
        let mut alive = match alive {
            Some(alive) => alive,
            None => Held {
                seats: Seats::open(&self.context.database, &self.group).await.map_err(fail)?,
                numbers: Vec::new(),
                is_awaited: false,
            },
        };
        let number = alive.seats.take_first(from).await.map_err(fail)?;
        let number = number.ok_or_else(|| Failure::Retry(format!("group {} has no free seat", self.group)))?;
        alive.numbers.push(number);
        alive.is_awaited = false;
        self.remove_dead(&alive.seats, number, from == 0).await.map_err(fail)?;
        tracing::info!(view = self.context.source.view, group = self.group, seat = number, "seat taken");
        *held = Some(alive);
        Ok(number)
    }

    /// Removes the member that has our name, and at the start those that have the name of any other free seat. What cannot be
    /// asked or removed is left to the session timeout.
    async fn remove_dead(&self, seats: &Seats, ours: i32, all: bool) -> Result<(), crate::store::DbError> {
        let (view, kafka, group) = (self.context.source.view, &self.context.kafka, &self.group);
        let ask = (kafka.clone(), group.clone());
        let members = match supervisor::blocking(move || dead_member::static_members(&ask.0, &ask.1)).await {
            Ok(members) => members,
            Err(error) => {
                tracing::debug!(view, group, error, "the broker does not tell who is in the group");
                return Ok(());
            }
        };
        let mut dead = Vec::new();
        for member in members {
            let Some(number) = MemberName::seat_of(&member) else { continue };
            if number == ours || (all && seats.take(number).await?) {
                dead.push((member, number));
            }
        }
        // All at once: as soon as one of them has left, the group lets nobody in until each of the others has come back.
        join_all(dead.iter().map(|(member, _)| self.remove(member))).await;
        for (_, number) in dead.into_iter().filter(|(_, number)| *number != ours) {
            seats.give_back(number).await?;
        }
        Ok(())
    }

    async fn remove(&self, member: &str) {
        let (view, name) = (self.context.source.view, member.to_owned());
        let (kafka, group) = (self.context.kafka.clone(), self.group.clone());
        let topic = self.context.source.topic.clone();
        match supervisor::blocking(move || dead_member::remove_dead(&kafka, (&group, &topic), &name)).await {
            Ok(()) => tracing::info!(view, member, "nobody holds its seat: removed from the group"),
            Err(error) => tracing::warn!(view, member, error, "a dead member stays until its session ends"),
        }
    }

    /// Looks after the seat until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look() => {}
            }
        }
    }

    async fn look(&self) {
        let mut held = self.held.lock().await;
        let Some(before) = held.as_mut() else { return };
        let (view, Some(number)) = (self.context.source.view, before.numbers.last().copied()) else { return };
        let lives = before.seats.confirm().await.is_ok();
        if lives && !before.is_awaited {
            return;
        }
        let again = async {
            if !lives {
                let seats = Seats::open(&self.context.database, &self.group).await?;
                *before = Held { seats, numbers: vec![number], is_awaited: true };
                tracing::warn!(view, seat = number, "the session that held the seat is lost; the seat is taken again");
            }
            before.is_awaited = !before.seats.take(number).await?;
            Ok::<_, crate::store::DbError>(before.is_awaited)
        };
        match again.await {
            Ok(false) => tracing::info!(view, seat = number, "seat taken again"),
            Ok(true) => {
                tracing::debug!(view, seat = number, "somebody holds the seat: our own lost session, or another one")
            }
            Err(error) => tracing::debug!(view, error = describe(&error), "the seat waits for Postgres"),
        }
    }
}

/// The halt of an instance whose configured name another one uses.
fn fenced(group: &str, name: &MemberName) -> Halt {
    Halt {
        code: "instance_fenced",
        detail: format!("another process has joined group {group} as {}", name.instance_id(group)),
        next_step: "give each process a kafka.instance_id of its own, or none, and see that the old one has ended before \
                    the new one starts; then restart",
    }
}
