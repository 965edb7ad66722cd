//! Reads what `EXPLAIN` prints: whether rows change, and which of the columns tell them apart. No I/O.

use crate::engines::Changes;

const SECTION: &str = "== Optimized Physical Plan ==";

/// Whether the rows of a plan, made with `CHANGELOG_MODE`, are only added.
pub(super) fn changes(plan: &str) -> Changes {
    let root = nodes(plan).into_iter().next().unwrap_or_default();
    match list(&root, "changelogMode") {
        Some(kinds) if kinds == ["I"] => Changes::Append,
        _ => Changes::Upsert,
    }
}

/// The places of the columns by which the rows of a plan are replaced; `None` where that is not to be seen. It is seen below
/// any number of projections: a `GROUP BY` outside of windows, or the first row of each partition.
///
/// It is checked by Flink itself when it explains the INSERT, so that a wrong guess is refused and never deployed.
pub(super) fn key(plan: &str) -> Option<Vec<usize>> {
    let nodes = nodes(plan);
    let at = nodes.iter().position(|node| is_keyed(node))?;
    let keyed = &nodes[at];
    let mut names = ["groupBy", "partitionBy", "key"].iter().find_map(|field| list(keyed, field))?;
    if names.is_empty() {
        return None;
    }
    // Upwards: what each projection calls them.
    for node in nodes[..at].iter().rev() {
        if let Some(items) = list(node, "select") {
            let renamed = |name: &String| {
                items.iter().map(|item| named(item)).find(|(from, _)| from == name).map(|(_, to)| to.to_owned())
            };
            names = names.iter().map(renamed).collect::<Option<Vec<_>>>()?;
        } else if !is_transparent(node) {
            return None;
        }
    }
    let outputs = nodes.iter().find_map(|node| list(node, "select").or_else(|| list(node, "fields")))?;
    let outputs: Vec<&str> = outputs.iter().map(|item| named(item).1).collect();
    names.iter().map(|name| outputs.iter().position(|output| output == name)).collect()
}

/// The nodes of the physical plan, the root first, `Name(field=[…], …)` each. A plan that branches is read along its first
/// branch: what joins is not transparent, so that no key is found above it.
fn nodes(plan: &str) -> Vec<String> {
    let Some((_, section)) = plan.split_once(SECTION) else { return Vec::new() };
    let section = section.split("\n\n").next().unwrap_or_default();
    let lines = section.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.trim_start_matches([' ', '+', '-', ':']).to_owned()).collect()
}

fn kind(node: &str) -> &str {
    node.split('(').next().unwrap_or_default()
}

fn is_keyed(node: &str) -> bool {
    matches!(kind(node), "GroupAggregate" | "GlobalGroupAggregate" | "Deduplicate" | "Rank" | "ChangelogNormalize")
}

fn is_transparent(node: &str) -> bool {
    matches!(kind(node), "Calc" | "Exchange" | "DropUpdateBefore" | "MiniBatchAssigner" | "WatermarkAssigner")
}

/// `customer AS who` as what it reads and what it is called; a column alone is both.
fn named(item: &str) -> (&str, &str) {
    item.rsplit_once(" AS ").unwrap_or((item, item))
}

/// The entries of `field=[a, f(b, c), 'd, e']`.
fn list(node: &str, field: &str) -> Option<Vec<String>> {
    let lead = format!("{field}=[");
    let at = node.match_indices(&lead).map(|(at, _)| at).find(|at| node[..*at].ends_with(['(', ' ']))?;
    let (mut depth, mut in_text, mut entry, mut entries) = (0_u32, false, String::new(), Vec::new());
    for letter in node[at + lead.len()..].chars() {
        match letter {
            '\'' => in_text = !in_text,
            '[' | '(' | '{' if !in_text => depth += 1,
            ']' if !in_text && depth == 0 => {
                let last = entry.trim();
                if !last.is_empty() {
                    entries.push(last.to_owned());
                }
                return Some(entries);
            }
            ']' | ')' | '}' if !in_text => depth = depth.saturating_sub(1),
            ',' if !in_text && depth == 0 => {
                entries.push(entry.trim().to_owned());
                entry.clear();
                continue;
            }
            _ => {}
        }
        entry.push(letter);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(nodes: &str) -> String {
        format!("== Abstract Syntax Tree ==\nx\n\n{SECTION}\n{nodes}\n\n== Optimized Execution Plan ==\ny\n")
    }

    #[test]
    fn rows_that_change_are_told_from_those_that_do_not() {
        assert_eq!(changes(&plan_of("Calc(select=[a], where=[>(a, 1)], changelogMode=[I])")), Changes::Append);
        assert_eq!(changes(&plan_of("Calc(select=[a], changelogMode=[I,UB,UA])\n+- x")), Changes::Upsert);
        assert_eq!(changes("nothing"), Changes::Upsert);
    }

    #[test]
    fn the_key_is_followed_through_projections() {
        let plan = plan_of(
            "Calc(select=[n, customer AS who, CONCAT('a, b', x) AS y], changelogMode=[I,UA])\n\
             +- GroupAggregate(groupBy=[customer], select=[customer, COUNT(*) AS n, MAX(x) AS x], changelogMode=[I,UA])\n   \
             +- Exchange(distribution=[hash[customer]], changelogMode=[I])",
        );
        assert_eq!(key(&plan), Some(vec![1]));
        let two =
            plan_of("GroupAggregate(groupBy=[a, b], select=[a, b, SUM(DISTINCT c) AS EXPR$2], changelogMode=[I,UA])");
        assert_eq!(key(&two), Some(vec![0, 1]));
    }

    #[test]
    fn no_key_is_invented() {
        for nodes in [
            "GroupAggregate(select=[COUNT(*) AS n], changelogMode=[I,UA])",
            "Calc(select=[n], changelogMode=[I,UA])\n+- GroupAggregate(groupBy=[a], select=[a, COUNT(*) AS n])",
            "Join(joinType=[LeftOuterJoin], where=[=(a, b)], select=[a, b, n])\n:- GroupAggregate(groupBy=[c], select=[c, n])",
            "Limit(offset=[0], fetch=[3], changelogMode=[I,UA])\n+- GroupAggregate(groupBy=[a], select=[a, COUNT(*) AS n])",
        ] {
            assert_eq!(key(&plan_of(nodes)), None, "{nodes}");
        }
    }
}
