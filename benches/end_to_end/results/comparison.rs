//! A result beside an earlier one: what became worse, what became better, and whether the two can be compared at all.

use std::collections::BTreeSet;
use std::fmt;

use super::{Better, Figure, Results};

/// A change of a judged figure by more than this share has a name.
const NOTABLE: f64 = 0.10;

/// What became of one figure.
///
/// | conditions | judged | worse by | verdict |
/// |---|---|---|---|
/// | the same | yes | more than 10 % | regression |
/// | the same | yes | less than -10 % | improvement |
/// | the same | yes | in between | steady |
/// | the same | no | anything | informs |
/// | differ | any | anything | informs |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is named.
    Regression,
    /// It is named too.
    Improvement,
    /// Within a tenth.
    Steady,
    /// Not judged.
    Informs,
}

/// One figure then and now.
#[derive(Debug)]
pub struct Change<'a> {
    /// Section and name.
    pub name: &'a str,
    /// What it was.
    pub before: &'a Figure,
    /// What it is.
    pub now: &'a Figure,
    /// What became of it.
    pub verdict: Verdict,
}

/// Two results side by side.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// Conditions that differ: name, then, now.
    pub differing: Vec<(&'a str, &'a str, &'a str)>,
    /// Figures of both.
    pub changes: Vec<Change<'a>>,
    /// What only the earlier result has: whole sections, or figures of a section that was measured.
    pub not_measured: BTreeSet<&'a str>,
}

/// Compares.
pub fn compare<'a>(before: &'a Results, now: &'a Results) -> Comparison<'a> {
    let names: BTreeSet<&String> = before.conditions.keys().chain(now.conditions.keys()).collect();
    let differing: Vec<_> = names
        .into_iter()
        .map(|name| {
            let value = |results: &'a Results| results.conditions.get(name).map_or("not set", String::as_str);
            (name.as_str(), value(before), value(now))
        })
        .filter(|(_, before, now)| before != now)
        .collect();
    let mut changes = Vec::new();
    let mut not_measured = BTreeSet::new();
    for (name, earlier) in &before.figures {
        match now.figures.get(name) {
            None => {
                not_measured.insert(missing(name, now));
            }
            Some(figure) => {
                let verdict = if differing.is_empty() { judge(earlier, figure) } else { Verdict::Informs };
                changes.push(Change { name, before: earlier, now: figure, verdict });
            }
        }
    }
    Comparison { differing, changes, not_measured }
}

/// The section of this figure if all of it is missing, else the figure.
fn missing<'a>(name: &'a str, now: &Results) -> &'a str {
    let Some((section, _)) = name.split_once(": ") else { return name };
    let is_measured = now.figures.keys().any(|other| other.split_once(": ").is_some_and(|(of, _)| of == section));
    if is_measured { name } else { section }
}

fn judge(before: &Figure, now: &Figure) -> Verdict {
    if !now.judged || now.better == Better::Neither {
        return Verdict::Informs;
    }
    match now.worse_than(before) {
        worse if worse > NOTABLE => Verdict::Regression,
        worse if worse < -NOTABLE => Verdict::Improvement,
        _ => Verdict::Steady,
    }
}

impl Comparison<'_> {
    /// All changes with this verdict.
    pub fn all(&self, verdict: Verdict) -> impl Iterator<Item = &Change<'_>> {
        self.changes.iter().filter(move |change| change.verdict == verdict)
    }

    /// Whether something is named as worse.
    pub fn has_regressions(&self) -> bool {
        self.all(Verdict::Regression).next().is_some()
    }

    fn named(&self, verdict: Verdict, title: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.all(verdict).count();
        writeln!(formatter, "\n{title} of more than {:.0} %: {number}", NOTABLE * 100.0)?;
        for Change { name, before, now, .. } in self.all(verdict) {
            let unit = if now.unit.is_empty() { String::new() } else { format!(" {}", now.unit) };
            let chance = if now.overlaps(before) { "; the spreads overlap, so it may be chance" } else { "" };
            let percent = now.worse_than(before).abs() * 100.0;
            writeln!(formatter, "  {name}: {:.2} -> {:.2}{unit}, {percent:.0} %{chance}", before.median, now.median)?;
        }
        Ok(())
    }
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n# beside the last saved result: median (least .. greatest)")?;
        writeln!(formatter, "{:<62} {:<10} {:>30} {:>30} {:>8}", "", "unit", "then", "now", "change")?;
        for Change { name, before, now, verdict } in &self.changes {
            let change = now.median / before.median - 1.0;
            let (then, new) = (before.to_string(), now.to_string());
            let percent = if change.is_finite() { format!("{:+.0} %", change * 100.0) } else { "-".to_owned() };
            let mark = match verdict {
                Verdict::Regression => "WORSE",
                Verdict::Improvement => "better",
                Verdict::Steady | Verdict::Informs => "",
            };
            let line = format!("{name:<62} {:<10} {then:>30} {new:>30} {percent:>8}  {mark}", now.unit);
            writeln!(formatter, "{}", line.trim_end())?;
        }
        if !self.not_measured.is_empty() {
            writeln!(formatter, "\nnot measured this time:")?;
            for name in &self.not_measured {
                writeln!(formatter, "  {name}")?;
            }
        }
        if self.differing.is_empty() {
            self.named(Verdict::Regression, "REGRESSIONS", formatter)?;
            return self.named(Verdict::Improvement, "improvements", formatter);
        }
        writeln!(formatter, "\nThe conditions differ, so nothing is called better or worse:")?;
        for (name, before, now) in &self.differing {
            writeln!(formatter, "  {name}: {before} -> {now}")?;
        }
        Ok(())
    }
}
