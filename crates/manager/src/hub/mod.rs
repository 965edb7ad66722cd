//! SignalR's hub protocol, as the stock clients speak it (source: the HubProtocol and TransportProtocols specifications of
//! ASP.NET Core, and recordings of the clients). Knows no sockets: the service brings bytes and takes frames away.
//!
//! ```text
//!   transport ──bytes──▶ session ──calls──▶ HubService
//!       ▲                 │    ▲               │
//!       └────frames───────┘    └────items──────┘
//! ```

pub mod client;
mod frame;
pub mod groups;
pub mod protocol;
pub mod service;
pub mod session;
pub mod settings;
mod streams;
#[cfg(test)]
mod tests;

pub use self::client::{Client, ConnectionId, PushText, Pushed};
pub use self::groups::Groups;
pub use self::service::{Call, Caller, HubService, Items, Method};
pub use self::session::{Ending, Incoming, Link, Opening, Outgoing, Session, connect};
pub use self::settings::HubTimes;
