//! Groups of clients that are sent the same.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::client::{Client, ConnectionId, PushText, Pushed};

/// The groups of a process, by name.
#[derive(Debug, Default)]
pub struct Groups(Mutex<HashMap<String, HashMap<ConnectionId, Client>>>);

/// What became of something that was sent to a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Clients for which it waits.
    pub clients: usize,
    /// Clients that have lost it, as they take too little.
    pub lost: usize,
}

impl Groups {
    /// Puts a client into a group; whether it is the group's first.
    pub fn join(&self, group: &str, client: &Client) -> bool {
        let mut groups = self.groups();
        let members = groups.entry(group.to_owned()).or_default();
        let is_first = members.is_empty();
        members.insert(client.id().clone(), client.clone());
        is_first
    }

    /// Takes a client out of a group; whether the group has nobody left now.
    pub fn leave(&self, group: &str, client: &Client) -> bool {
        let mut groups = self.groups();
        let Some(members) = groups.get_mut(group) else { return false };
        members.remove(client.id());
        let is_empty = members.is_empty();
        if is_empty {
            groups.remove(group);
        }
        is_empty
    }

    /// Takes a client out of all groups; those that have nobody left now.
    pub fn leave_all(&self, client: &Client) -> Vec<String> {
        let mut emptied = Vec::new();
        self.groups().retain(|group, members| {
            let was_member = members.remove(client.id()).is_some();
            if was_member && members.is_empty() {
                emptied.push(group.clone());
            }
            !members.is_empty()
        });
        emptied
    }

    /// Sends something to all of a group, without waiting.
    pub fn send(&self, group: &str, text: &PushText) -> Told {
        let mut told = Told::default();
        for client in self.groups().get(group).into_iter().flat_map(HashMap::values) {
            match client.push(text) {
                Pushed::Waits => told.clients += 1,
                Pushed::Lost => told.lost += 1,
                Pushed::Gone => {}
            }
        }
        told
    }

    /// How many clients a group has.
    pub fn size(&self, group: &str) -> usize {
        self.groups().get(group).map_or(0, HashMap::len)
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<String, HashMap<ConnectionId, Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_its_members_and_ends_with_the_last() {
        let groups = Groups::default();
        let (ada, mut ada_gets) = Client::new(ConnectionId("ada".into()));
        let (eve, eve_gets) = Client::new(ConnectionId("eve".into()));
        assert!(groups.join("orders", &ada) && !groups.join("orders", &eve) && groups.join("payments", &eve));
        let text = PushText::new("ReceiveMessage", "1");
        assert_eq!(groups.send("orders", &text), Told { clients: 2, lost: 0 });
        assert_eq!(groups.send("nobody", &text), Told::default());
        assert!(ada_gets.now().is_some() && ada_gets.now().is_none());

        drop(eve_gets);
        assert_eq!(groups.send("orders", &text), Told { clients: 1, lost: 0 });
        assert_eq!(groups.leave_all(&eve), ["payments"]);
        assert_eq!((groups.size("orders"), groups.size("payments")), (1, 0));
        assert!(!groups.leave("orders", &eve), "somebody is left");
        assert!(groups.leave("orders", &ada) && !groups.leave("orders", &ada));
    }
}
