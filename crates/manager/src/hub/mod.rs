//! SignalR's hub protocol, as the stock clients speak it (source: the HubProtocol and TransportProtocols specifications of
//! ASP.NET Core, and recordings of the clients). Knows no sockets: the service brings bytes and takes frames away.
//!
//! ```text
//!   transport ──bytes──▶ conversation ──asked──▶ session ──calls──▶ HubService
//!   transport ◀─frames── session: one Completion for each id; items of 20 ms in one frame ◀──items── its streams
//! ```

pub mod client;
pub mod groups;
pub mod protocol;
pub mod service;

pub use self::client::{Client, ConnectionId, PushText, Pushed};
pub use self::groups::Groups;
pub use self::service::{Call, Caller, HubService, Items, Method};
