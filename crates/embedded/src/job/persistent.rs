//! A deployed query. One commit holds what it has given, how far it has read, and which windows are written.
//!
//! Positions stand where a restart has to begin: at the lowest row of a window that is still open, else behind what was read. So a
//! restart reads open windows again, drops what belongs to windows that were written, and no window is written twice or lacks
//! a row. Nothing of a partition's time is kept: after a restart it holds windows open until its own rows say how late it is.
//!
//! After a fault that passes everything is begun again from the committed positions, by the same writer: a new one would end
//! that of another instance that has taken over.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamview_manager::engines::ObservedState;
use tokio::runtime::Runtime;

use super::intake::{Intake, Taken};
use super::notes::{Judged, Notes};
use super::output::{Origins, Writing};
use super::places::Places;
use super::seen::{Counts, Job, Wish};
use super::tables::{Stop, Tables};
use super::{Outside, now_ms, runtime, spawn, told};
use crate::log::{Batch, LogError, Outgoing, Place, Position, Reader, Record, Writer};
use crate::plan::Prepared;
use crate::run::{Execution, Output};
use crate::settings::Settings;

/// How long records are waited for where nothing else is to be done.
const WAIT: Duration = Duration::from_millis(100);
/// How long what windows have read waits for its commit, where none of them closes: only positions move.
const WINDOWS: Duration = Duration::from_secs(1);
/// Records that are committed at once at most.
const MOST_RECORDS: usize = 20_000;
/// So often it is asked for new partitions, and whether the topics are still the same.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// So often positions are written again of a query that nothing comes of: Kafka forgets groups that are silent for a week.
const STILL_HERE: Duration = Duration::from_secs(6 * 3600);
/// Waits before something is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why a query cannot begin.
#[derive(Debug)]
pub(crate) enum Cannot {
    /// What Kafka says.
    Log(LogError),
    /// What it shall go on from is not there.
    NothingKept(String),
    /// It does not start.
    Failed(String),
}

impl From<LogError> for Cannot {
    fn from(error: LogError) -> Cannot {
        Cannot::Log(error)
    }
}

/// What is to be run.
pub(crate) struct Plan {
    pub job: Arc<Job>,
    /// By what its text is known again, with how its sources are read.
    pub text: u64,
    pub prepared: Prepared,
    pub outside: Outside,
    pub settings: Settings,
    pub revision: i32,
    /// It goes on from positions that have to be there.
    pub goes_on: bool,
    /// Held while it runs.
    pub permit: Box<dyn Send>,
    /// Told when it is not this process's any more: another instance has taken over, or may.
    pub gone: Box<dyn FnOnce() + Send>,
}

/// The name under which a definition's queries write: whoever takes it ends who had it before.
pub(crate) fn writer_name(definition: &str) -> String {
    format!("streamview-{definition}")
}

/// Takes the query's writer, looks where it begins, writes that down, and runs it on a thread of its own. Blocks until that is
/// done: then it is known to a restart.
pub(crate) fn begin(plan: Plan) -> Result<(), Cannot> {
    let job = Arc::clone(&plan.job);
    let writer = plan.outside.log.writer(&writer_name(&job.definition), &job.group, &job.topics)?;
    let runtime = runtime().map_err(Cannot::Failed)?;
    let (permit, gone) = (plan.permit, plan.gone);
    let writing = Writing::new(
        &plan.prepared,
        &job.handle.output_topic,
        plan.outside.log.delivery(),
        (&job.definition, plan.revision),
    );
    let mut query = Query {
        text: plan.text,
        job: Arc::clone(&job),
        prepared: plan.prepared,
        outside: plan.outside,
        settings: plan.settings,
        writer,
        writing,
        made: HashSet::new(),
        runtime,
    };
    let run = query.start(plan.goes_on)?;
    let (name, ended) = (format!("query-{}", job.handle.job_id), Arc::clone(&job));
    let work = move || {
        let end = query.until_its_end(run);
        // Whoever writes next takes the name when this one's writer is gone.
        drop(query);
        drop(permit);
        match end {
            End::Asked if job.wish() == Wish::LetGo => {
                gone();
                job.ends(ObservedState::Absent, None);
            }
            End::Asked => job.ends(ObservedState::Stopped, None),
            End::Failed(why) => {
                tracing::warn!(query = job.handle.job_id, error = why, "a query has failed");
                job.ends(ObservedState::Failed, Some(why));
            }
            End::Fenced => {
                tracing::warn!(query = job.handle.job_id, "another instance runs this query now: it ends here");
                gone();
                job.ends(ObservedState::Absent, None);
            }
        }
        Ok(())
    };
    let broken = move |why: String| {
        tracing::error!(query = ended.handle.job_id, error = why, "a query has failed");
        ended.ends(ObservedState::Failed, Some(why));
    };
    spawn(name, work, broken).map_err(|error| Cannot::Failed(format!("there is no thread for the query: {error}")))
}

/// How a query ends.
enum End {
    Asked,
    Failed(String),
    Fenced,
}

/// Why a run is over.
enum Over {
    Asked,
    Log(LogError),
    Failed(String),
}

impl From<Stop> for Over {
    fn from(stop: Stop) -> Over {
        match stop {
            Stop::Log(error) => Over::Log(error),
            Stop::Failed(failure) => Over::Failed(told(failure)),
        }
    }
}

impl From<LogError> for Over {
    fn from(error: LogError) -> Over {
        Over::Log(error)
    }
}

/// What stays while it is begun again and again.
struct Query {
    job: Arc<Job>,
    /// By what its text is known again.
    text: u64,
    prepared: Prepared,
    outside: Outside,
    settings: Settings,
    writer: Box<dyn Writer>,
    writing: Writing,
    /// Topics that are known to be there.
    made: HashSet<String>,
    runtime: Runtime,
}

/// One run, from committed positions on.
struct Run {
    reader: Box<dyn Reader>,
    intake: Intake,
    execution: Execution,
    /// The tables that it joins, if any.
    tables: Option<Tables>,
    places: Places,
    ids: Vec<Option<String>>,
    batch: Batch,
    /// What the next commit holds.
    pending: Vec<Outgoing>,
    rows: usize,
    /// Among it, what stands aside: refused, from the future, late.
    aside: [usize; 3],
    /// Groups that are not in it.
    failed_groups: usize,
    /// Whether something was read since the last one.
    is_dirty: bool,
    committed: Instant,
    asked: Instant,
}

impl Query {
    /// Finds where it begins, and writes that down where it is new. `goes_on`: some of it is there.
    fn start(&mut self, goes_on: bool) -> Result<Run, Cannot> {
        let mut reader = self.outside.log.reader(&self.job.topics)?;
        let ids = reader.ids()?;
        let places: Vec<Place> = all_places(&reader.partitions()?);
        let known = self.writer.positions(&places)?;
        if goes_on && known.is_empty() {
            return Err(Cannot::NothingKept(format!("consumer group {} holds no positions any more", self.job.group)));
        }
        let known: BTreeMap<Place, Position> = known.into_iter().map(|position| (position.place, position)).collect();
        let bounds = self.settings.bounds(self.settings.persistent_memory_bytes);
        let mut execution = self.prepared.start(bounds).map_err(|failure| Cannot::Failed(told(failure)))?;
        let (mut progress, mut from, mut closed) = (Places::default(), Vec::new(), None);
        for place in &places {
            let bounds = reader.bounds(*place)?;
            let (offset, judged, future) = match known.get(place) {
                None => (bounds.0, (bounds.0, bounds.0), BTreeSet::new()),
                Some(position) => {
                    let notes = self.read_notes(position, bounds, ids[place.topic].as_deref())?;
                    closed = closed.max(notes.closed_until);
                    (position.offset, (notes.read, notes.judged_by(self.text)), notes.future)
                }
            };
            progress.add(*place, offset, judged, future);
            from.push((*place, offset));
        }
        for number in 0..self.job.topics.len() {
            let partitions: Vec<i32> =
                places.iter().filter(|place| place.topic == number).map(|place| place.partition).collect();
            execution.assign(number, &partitions);
        }
        if let Some(closed) = closed {
            execution.resume(closed);
        }
        reader.assign(&from)?;
        let tables = Tables::of(&self.prepared, &execution, &self.outside, &self.settings)?;
        let now = Instant::now();
        let intake = Intake::new(&self.prepared, self.outside.schemas.clone());
        let (batch, pending) = (Batch::default(), Vec::new());
        let mut run = Run {
            reader,
            intake,
            execution,
            tables,
            places: progress,
            ids,
            batch,
            pending,
            rows: 0,
            aside: [0; 3],
            failed_groups: 0,
            is_dirty: false,
            committed: now,
            asked: now,
        };
        if known.len() < places.len() {
            self.commit(&mut run)?;
        }
        Ok(run)
    }

    /// What was noted beside a position, if that is still one in this topic.
    fn read_notes(&self, position: &Position, (low, high): (i64, i64), id: Option<&str>) -> Result<Notes, LogError> {
        let (topic, partition) = (&self.job.topics[position.place.topic], position.place.partition);
        let notes = Notes::read(&position.metadata).ok_or_else(|| {
            LogError::Halt(format!("the positions of consumer group {} were written by somebody else", self.job.group))
        })?;
        if let (Some(noted), Some(id)) = (notes.topic_id.as_deref(), id)
            && noted != id
        {
            return Err(LogError::Halt(format!(
                "topic {topic} is another one than the query has read: it was deleted and made anew; deploy the query \
                 from the beginning"
            )));
        }
        if position.offset < low {
            return Err(LogError::Halt(format!(
                "records of topic {topic} that the query has not counted yet were deleted: partition {partition} begins \
                 at {low}, and it has to go on at {}; deploy the query from the beginning",
                position.offset
            )));
        }
        if position.offset > high {
            return Err(LogError::Halt(format!(
                "partition {partition} of topic {topic} ends at {high}, and the query has read up to {}: it is another \
                 log; deploy the query from the beginning",
                position.offset
            )));
        }
        Ok(notes)
    }

    /// Runs, and begins again where something passes.
    fn until_its_end(&mut self, first: Run) -> End {
        let (mut run, mut wait) = (Some(first), FIRST_WAIT);
        loop {
            let (over, rest) = match run.take() {
                Some(mut run) => {
                    let begun = Instant::now();
                    let over = self.run(&mut run);
                    // It has got somewhere.
                    if run.committed > begun {
                        wait = FIRST_WAIT;
                    }
                    (over, run.tables.as_ref().map(Tables::rest).unwrap_or_default())
                }
                None => match self.start(true) {
                    Ok(begun) => {
                        run = Some(begun);
                        continue;
                    }
                    Err(Cannot::Log(error)) => (Over::Log(error), Duration::ZERO),
                    Err(Cannot::NothingKept(why) | Cannot::Failed(why)) => (Over::Failed(why), Duration::ZERO),
                },
            };
            match over {
                Over::Asked => return End::Asked,
                Over::Log(LogError::Fenced) => return End::Fenced,
                Over::Log(LogError::Halt(why)) | Over::Failed(why) => return End::Failed(why),
                Over::Log(LogError::Again(why)) => {
                    tracing::info!(query = self.job.handle.job_id, why, "a query begins again from its positions");
                    self.job.begins_again(&why);
                    if self.job.pause(wait.max(rest)) != Wish::Run {
                        return End::Asked;
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    fn run(&mut self, run: &mut Run) -> Over {
        match self.read_tables(run) {
            Ok(true) => {}
            Ok(false) => return Over::Asked,
            Err(over) => return over,
        }
        self.job.runs();
        loop {
            match self.turn(run) {
                Ok(true) => {}
                Ok(false) => return Over::Asked,
                Err(over) => return over,
            }
        }
    }

    /// Reads its tables to their ends. `false` when it was asked to end.
    fn read_tables(&self, run: &mut Run) -> Result<bool, Over> {
        let Some(tables) = &mut run.tables else { return Ok(true) };
        while !tables.is_whole() {
            if self.job.wish() != Wish::Run {
                return Ok(false);
            }
            tables.read(WAIT, &self.runtime)?;
        }
        tables.refresh(&self.prepared, &mut run.execution)?;
        self.job.meets(tables.now());
        Ok(true)
    }

    /// Reads, computes, and commits if that is due. `false` when it was asked to end.
    fn turn(&mut self, run: &mut Run) -> Result<bool, Over> {
        let wish = self.job.wish();
        match wish {
            Wish::Run => {}
            Wish::Keep if run.is_dirty => {
                self.commit(run)?;
                return Ok(false);
            }
            Wish::Keep | Wish::End | Wish::LetGo => return Ok(false),
        }
        let pause = if run.is_dirty { self.pause().saturating_sub(run.committed.elapsed()).min(WAIT) } else { WAIT };
        if let Some(tables) = &mut run.tables
            && tables.keep_up(&self.prepared, &mut run.execution, &self.runtime)?
        {
            self.job.meets(tables.now());
        }
        run.reader.next(&mut run.batch, pause)?;
        let begun = Instant::now();
        let mut moved = BTreeSet::new();
        if !run.batch.is_empty() {
            run.is_dirty = true;
            Counts::add(&self.job.counts.read, run.batch.len());
            moved = self.compute(run)?;
        }
        run.is_dirty |= run.places.note(&run.batch, &moved, begun);
        run.places.tell_idle(&mut run.execution, &mut *run.reader, self.settings.idle, begun);
        let closed = match run.places.are_where_they_were() {
            true => self.runtime.block_on(run.execution.close(now_ms())),
            false => Ok(Vec::new()),
        };
        let closed = closed.map_err(|failure| Over::Failed(told(failure)))?;
        for group in run.execution.take_failed_groups() {
            let (from, query) = (group.window.0, &self.job.handle.job_id);
            tracing::debug!(query, window = from, why = group.why, "a group of a window is not in its rows");
            run.failed_groups += 1;
        }
        let has_closed = !closed.is_empty() || run.failed_groups > 0;
        self.give(run, &closed, None);
        let counts = &self.job.counts;
        counts.note(run.execution.usage(), run.execution.watermark());
        Counts::add(&counts.busy_micros, usize::try_from(begun.elapsed().as_micros()).unwrap_or_default());
        let waited = run.committed.elapsed();
        let is_due = run.is_dirty && (waited >= self.pause() || run.pending.len() >= MOST_RECORDS);
        if has_closed || is_due || waited >= STILL_HERE {
            self.commit(run)?;
        }
        if run.asked.elapsed() >= ASK_AGAIN {
            run.asked = Instant::now();
            self.ask(run)?;
        }
        Ok(true)
    }

    /// How long what was read may wait for its commit.
    fn pause(&self) -> Duration {
        match self.prepared.window() {
            None => self.settings.commit,
            Some(_) => self.settings.commit.max(WINDOWS),
        }
    }

    /// Rows that are to be written, of a window, or of records of the topic of this name.
    fn give(&self, run: &mut Run, outputs: &[Output], source: Option<&str>) {
        let mut origins = source.map(Origins::of);
        for output in outputs {
            self.writing.rows(output, origins.as_mut(), &mut run.pending);
            run.rows += output.rows.num_rows();
            run.is_dirty = true;
        }
    }

    /// Has the query take a batch. What it does not count goes aside, unless an earlier run has seen to that. Gives the partitions of
    /// which some row said how late it is.
    fn compute(&mut self, run: &mut Run) -> Result<BTreeSet<Place>, Over> {
        let places = &run.places;
        let is_left_out = |record: &Record<'_>| places.was_future(record.place, record.offset);
        let Taken { rows, refused, tombstones } = run.intake.take(&run.batch, is_left_out, &self.runtime)?;
        let counts = &self.job.counts;
        Counts::add(&counts.tombstones, usize::try_from(tombstones).unwrap_or_default());
        let mut moved = BTreeSet::new();
        let mut aside: BTreeMap<(Place, i64), (Aside, String)> =
            refused.into_iter().map(|(at, why)| (at, (Aside::Refused, why))).collect();
        for (source, rows) in rows {
            let pushed = self.runtime.block_on(run.execution.push(source, rows, now_ms()));
            let pushed = pushed.map_err(|failure| Over::Failed(told(failure)))?;
            self.give(run, &pushed.out, Some(&self.job.topics[source]));
            moved.extend(pushed.moved.iter().map(|partition| Place { topic: source, partition: *partition }));
            let at = |partition, offset| (Place { topic: source, partition }, offset);
            let refused =
                pushed.refused.into_iter().map(|row| (at(row.partition, row.offset), (Aside::Refused, row.why)));
            let late = pushed.late.into_iter().map(|(partition, offset)| {
                (at(partition, offset), (Aside::Late, "late: its windows are closed".to_owned()))
            });
            let future = pushed.future.into_iter().map(|(partition, offset)| {
                (at(partition, offset), (Aside::Future, "future: its time is too far ahead of the clock".to_owned()))
            });
            aside.extend(refused.chain(late).chain(future));
        }
        aside.retain(|(place, offset), (kind, _)| match kind {
            // Another text may have counted what this one refuses: nobody has written that down.
            Aside::Refused => !run.places.is_judged_alike(*place, *offset),
            Aside::Future | Aside::Late => !run.places.is_judged(*place, *offset),
        });
        if aside.is_empty() {
            return Ok(moved);
        }
        let Run { batch, pending, places, aside: counted, .. } = run;
        let records: Vec<(Record<'_>, &(Aside, String))> =
            batch.records().filter_map(|record| Some((record, aside.get(&(record.place, record.offset))?))).collect();
        for (record, (kind, why)) in records {
            let to = match kind {
                Aside::Refused | Aside::Future => self.writing.dead_letters(),
                Aside::Late => self.writing.late(),
            };
            counted[*kind as usize] += 1;
            if matches!(kind, Aside::Future) {
                places.note_future(record.place, record.offset);
            }
            if !self.made.contains(to) {
                self.outside.log.make_topic(to)?;
                self.made.insert(to.to_owned());
            }
            pending.push(self.writing.aside(to, &self.job.topics[record.place.topic], &record, why));
        }
        Ok(moved)
    }

    /// Writes what waits, and how far all partitions were read.
    fn commit(&mut self, run: &mut Run) -> Result<(), LogError> {
        let (held, closed_until) = (run.execution.held_from(), run.execution.closed_until());
        let mut positions = Vec::with_capacity(run.places.all.len());
        for (place, progress) in &mut run.places.all {
            let offset = held.get(&(place.topic, place.partition)).copied().unwrap_or(progress.next);
            progress.forget_future(offset);
            let notes = Notes {
                read: progress.next.max(progress.judged),
                judged: Some(Judged { text: self.text, below: progress.next.max(progress.judged_alike) }),
                closed_until,
                future: progress.future.clone(),
                topic_id: run.ids[place.topic].clone(),
            };
            positions.push(Position { place: *place, offset, metadata: notes.to_string() });
        }
        self.writer.commit(&run.pending, &positions)?;
        run.pending.clear();
        (run.is_dirty, run.committed) = (false, Instant::now());
        let counts = &self.job.counts;
        Counts::add(&counts.commits, 1);
        for (counter, more) in [&counts.refused, &counts.future, &counts.late].into_iter().zip(&mut run.aside) {
            Counts::add(counter, std::mem::take(more));
        }
        Counts::add(&counts.failed_groups, std::mem::take(&mut run.failed_groups));
        self.job.wrote(std::mem::take(&mut run.rows), run.committed);
        Ok(())
    }

    /// Asks for new partitions, which are read from their beginning, and whether the topics are still the same.
    fn ask(&self, run: &mut Run) -> Result<(), LogError> {
        let ids = run.reader.ids()?;
        if ids != run.ids {
            return Err(LogError::Halt("a topic was deleted and made anew while the query was reading it".to_owned()));
        }
        let found = all_places(&run.reader.partitions()?);
        let new: Vec<Place> = found.into_iter().filter(|place| !run.places.all.contains_key(place)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut from = Vec::new();
        for place in new {
            let (low, _) = run.reader.bounds(place)?;
            run.places.add(place, low, (low, low), BTreeSet::new());
            from.push((place, low));
        }
        for number in 0..self.job.topics.len() {
            let of_topic = run.places.all.keys().filter(|place| place.topic == number);
            run.execution.assign(number, &of_topic.map(|place| place.partition).collect::<Vec<_>>());
        }
        run.is_dirty = true;
        run.reader.assign(&from)
    }
}

/// Why a record is not counted.
#[derive(Debug, Clone, Copy)]
enum Aside {
    Refused,
    Future,
    Late,
}

pub(super) fn all_places(partitions: &[Vec<i32>]) -> Vec<Place> {
    let of = |(topic, partitions): (usize, &Vec<i32>)| {
        partitions.iter().map(move |partition| Place { topic, partition: *partition }).collect::<Vec<_>>()
    };
    partitions.iter().enumerate().flat_map(of).collect()
}
