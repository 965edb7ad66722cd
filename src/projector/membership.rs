//! An instance's place in its group: joined, and joined anew when the client is lost or the group is silent. What is
//! consumed is not its business: that is the coordinator's, which has let everything go before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::domain::units::Partition;
use crate::failure::{Halt, Waiting};
use crate::platforms::kafka::consumer::{Command, GroupMember, GroupNews, Loss, MemberName};
use crate::projector::context::ViewContext;
use crate::projector::seating::Seating;
use crate::projector::supervisor::{self, Supervisor};
use crate::status::Reporter;

/// Clients that are lost one after the other are replaced that far apart.
const APART: Duration = Duration::from_secs(5);

/// What it takes to join a group.
pub struct Group {
    /// Its name.
    pub name: String,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Where its news go.
    pub news: UnboundedSender<GroupNews>,
}

/// A place in the group.
pub struct Membership {
    /// The member.
    pub member: GroupMember,
    context: Arc<ViewContext>,
    group: Group,
    seating: Arc<Seating>,
    name: MemberName,
    joined_at: Instant,
    /// A client could not be made: it is tried again.
    failed: bool,
    /// The client is lost, and the name of the next one is not known yet. To join under the old one would fence whoever has
    /// it now.
    is_nameless: bool,
    /// Since when the group has said nothing after it took our partitions.
    left_alone_since: Option<Instant>,
    /// Why the group does not take us, in its last words.
    refused: Option<String>,
    /// Memberships that were replaced: leaving may take as long as the client likes.
    leaving: Supervisor,
}

impl Membership {
    /// Joins the group.
    pub fn join(
        context: Arc<ViewContext>,
        group: Group,
        seating: Arc<Seating>,
        name: MemberName,
    ) -> Result<Self, String> {
        let member = join_as(&context, &group, &name, 1)?;
        Ok(Membership {
            member,
            leaving: Supervisor::new(&context.status),
            context,
            group,
            seating,
            name,
            joined_at: Instant::now(),
            failed: false,
            is_nameless: false,
            left_alone_since: None,
            refused: None,
        })
    }

    /// Whether news of that number are of the present membership.
    pub fn is_present(&self, number: u64) -> bool {
        self.member.number == number
    }

    /// Queues a command.
    pub fn command(&self, command: Command) {
        self.member.command(command);
    }

    /// The group has given us partitions, perhaps none: it takes us.
    pub fn is_taken(&mut self) {
        self.left_alone_since = None;
        self.refused = None;
        self.context.status.clear(Reporter::Group);
    }

    /// The group has taken partitions back; whether it has left us any.
    pub fn has_revoked(&mut self, any_left: bool) {
        self.left_alone_since = (!any_left).then(Instant::now);
        if let Some(words) = self.refused.as_deref().filter(|_| !any_left) {
            self.context.status.report(Reporter::Group, Waiting::Kafka, words);
        }
    }

    /// The group does not take us. While we have partitions that is weather: they are consumed, and the fence decides.
    pub fn is_refused(&mut self, words: String, has_partitions: bool) {
        if self.refused.as_ref() != Some(&words) {
            tracing::warn!(view = self.context.source.view, group = self.group.name, words, "the group refuses us");
        }
        if !has_partitions {
            self.context.status.report(Reporter::Group, Waiting::Kafka, &words);
        }
        self.refused = Some(words);
    }

    /// The client is over: gives the name to join under next.
    pub fn is_lost(&mut self, loss: &Loss) -> impl Future<Output = Result<MemberName, Halt>> + Send + use<> {
        let (view, group) = (self.context.source.view, &self.group.name);
        let name = self.name.instance_id(group);
        let what = if loss.is_fenced { "is fenced" } else { "is lost" };
        let words = format!("the member {name} of group {group} {what}: {}", loss.text);
        tracing::warn!(view, "{words}");
        self.context.status.report(Reporter::Group, Waiting::Kafka, &format!("{words}; it joins anew"));
        self.is_nameless = true;
        let wait = APART.saturating_sub(self.joined_at.elapsed());
        let (seating, name, is_fenced) = (Arc::clone(&self.seating), self.name.clone(), loss.is_fenced);
        async move {
            if !is_fenced {
                tokio::time::sleep(wait).await;
                return Ok(name);
            }
            let next = seating.next_name(&name).await?;
            tokio::time::sleep(wait).await;
            Ok(next)
        }
    }

    /// Joins anew after the group took our partitions and then said nothing for two sessions: after some outages the
    /// client never rejoins by itself. Likewise after a client could not be made.
    pub fn look(&mut self) {
        let patience = Duration::from_millis(2 * self.context.kafka.session_timeout_ms);
        if self.is_nameless {
            return;
        }
        if self.failed || self.left_alone_since.is_some_and(|since| since.elapsed() > patience) {
            self.join_anew("the group is silent, joined anew");
        }
    }

    /// From now on it joins under that name.
    pub fn rename(&mut self, name: MemberName) {
        self.name = name;
        self.is_nameless = false;
    }

    /// The group has given us these partitions: says so if the topic has more than it had.
    pub fn note_growth(&mut self, partitions: &[Partition]) {
        let (view, topic, before) = (self.context.source.view, &self.context.source.topic, self.group.partitions);
        let now = partitions.iter().filter_map(|partition| usize::try_from(partition.0 + 1).ok()).max().unwrap_or(0);
        if now > before {
            tracing::info!(view, topic, before, now, "partitions were added to the topic");
            self.group.partitions = now;
        }
    }

    /// Joins anew.
    pub fn join_anew(&mut self, why: &str) {
        let view = self.context.source.view;
        match join_as(&self.context, &self.group, &self.name, self.member.number + 1) {
            Ok(member) => {
                let name = self.name.instance_id(&self.group.name);
                tracing::warn!(view, group = self.group.name, name, "{why}");
                let old = std::mem::replace(&mut self.member, member);
                old.hush();
                self.leaving.chore("replaced membership", supervisor::blocking(move || old.leave()));
                (self.failed, self.left_alone_since, self.joined_at) = (false, None, Instant::now());
            }
            Err(error) => {
                self.failed = true;
                tracing::warn!(view, error, "cannot join anew");
            }
        }
    }

    /// Leaves the group; whoever leaves longer than `patience` is left to the end of its session.
    pub async fn end(self, patience: Duration) {
        let Membership { member, mut leaving, context, .. } = self;
        if tokio::task::spawn_blocking(move || member.leave()).await.is_err() {
            tracing::error!("leaving the group panicked");
        }
        if tokio::time::timeout(patience, leaving.ended()).await.is_err() {
            let view = context.source.view;
            tracing::warn!(view, "a replaced membership has not left the group yet; its session ends by itself");
        }
    }
}

fn join_as(context: &ViewContext, group: &Group, name: &MemberName, number: u64) -> Result<GroupMember, String> {
    let wanted = (group.name.as_str(), context.source.topic.as_str(), group.partitions);
    GroupMember::join(&context.kafka, wanted, name, (number, group.news.clone())).map_err(|error| error.to_string())
}
