//! A topology out of the text by which Kafka Streams describes it.

use crate::engines::{Node, Topology};

/// Reads `Source:`, `Processor:` and `Sink:` lines with the arrows below them; other lines are passed over.
pub(super) fn read(text: &str) -> Topology {
    let mut topology = Topology::default();
    for line in text.lines().map(str::trim) {
        if let Some(targets) = line.strip_prefix("-->") {
            let Some(from) = topology.nodes.last().map(|node| node.id.clone()) else { continue };
            let targets = targets.split(',').map(str::trim).filter(|target| !target.is_empty() && *target != "none");
            topology.edges.extend(targets.map(|target| (from.clone(), target.to_owned())));
            continue;
        }
        let Some((kind, rest)) = line.split_once(": ") else { continue };
        if ["Source", "Processor", "Sink"].contains(&kind) {
            let (id, about) = rest.split_once(' ').unwrap_or((rest, ""));
            // `(stores: [])` says nothing.
            let about = if about.contains("[]") { "" } else { about.trim() };
            let label = format!("{kind} {about}").trim().to_owned();
            topology.nodes.push(Node { id: id.to_owned(), label });
        }
    }
    topology
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_become_edges() {
        let text = "Topologies:\n   Sub-topology: 0\n    Source: KSTREAM-SOURCE-0 (topics: [orders])\n      --> A, B\n    Processor: \
                    A (stores: [])\n      --> Out\n      <-- KSTREAM-SOURCE-0\n    Processor: B (stores: [s])\n      --> none\n    \
                    Sink: Out (topic: view)\n      <-- A\n";
        let topology = read(text);
        let labels: Vec<&str> = topology.nodes.iter().map(|node| node.label.as_str()).collect();
        assert_eq!(labels, ["Source (topics: [orders])", "Processor", "Processor (stores: [s])", "Sink (topic: view)"]);
        let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(topology.edges, [edge("KSTREAM-SOURCE-0", "A"), edge("KSTREAM-SOURCE-0", "B"), edge("A", "Out")]);
    }
}
