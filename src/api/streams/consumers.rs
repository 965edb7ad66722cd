//! Who reads a stream.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::part;
use super::requests::manager;
use crate::api::Api;
use crate::api::parameters::Parameters;
use crate::api::problem::Problem;
use crate::manager::manager::Readers;
use crate::manager::ports::{ConsumerGroup, Consumers};

/// Who reads a stream?
///
/// The consumer groups that read the topic which it writes, or have committed positions in it, each with how much it has not
/// read yet. The brokers are asked once in 10 s, however many look, for 50 groups at most; those that read it just now are
/// asked first. Brokers that do not tell are named in `trouble`.
#[utoipa::path(get, path = "/api/streams/{id}/consumers", operation_id = "list_stream_consumers", tag = "streams",
    params(("id" = String, Path, description = "Its id, with or without hyphens", min_length = 1, max_length = 256, pattern = "^[^\\x00]+$")),
    responses((status = 200, description = "Its consumers", body = ConsumersBody)))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let manager = manager(&api)?;
    Parameters::parse(request.query_string(), &[]).finish()?;
    let readers = manager.consumers(&part(&request, "id")?).await?;
    Ok(HttpResponse::Ok().json(ConsumersBody::from(readers)))
}

/// Who reads what a stream writes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamConsumers)]
pub(super) struct ConsumersBody {
    /// The topic that it writes.
    pub topic: String,
    /// Consumer groups that read it, or have committed positions in it, by name.
    #[schema(max_items = 50)]
    pub items: Vec<ConsumerGroupBody>,
    /// Groups of the cluster of which that is not known: more than 50 are not asked, nor those that are left after 20 s, and
    /// some do not tell.
    #[schema(minimum = 0)]
    pub not_asked: usize,
    /// When the brokers were asked: up to 10 s ago.
    #[schema(value_type = String, format = DateTime)]
    pub observed_at: Timestamp,
    /// Why the brokers do not tell it; null if they do.
    #[schema(required)]
    pub trouble: Option<String>,
}

/// A consumer group, as far as the topic goes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamConsumerGroup)]
pub(super) struct ConsumerGroupBody {
    /// Its name.
    pub group: String,
    /// Its state, in the words of its coordinator: `Stable`, `Empty`, `PreparingRebalance` …; `not told` of a group of Kafka's
    /// newer protocol.
    pub state: String,
    /// Members that read the topic just now; null where the group does not tell.
    #[schema(required)]
    pub members: Option<usize>,
    /// Records that it has not committed yet; null: it has committed no position, or `trouble` says why that is not known.
    #[schema(required)]
    pub lag: Option<u64>,
    /// Why its positions are not known.
    #[schema(required)]
    pub trouble: Option<String>,
}

impl From<Readers> for ConsumersBody {
    fn from(Readers { topic, told, at }: Readers) -> Self {
        let (found, trouble) = match told {
            Ok(found) => (found, None),
            Err(error) => (Consumers::default(), Some(error.to_string())),
        };
        let items = found.groups.into_iter().map(|group| {
            let ConsumerGroup { group, state, members, lag, trouble } = group;
            ConsumerGroupBody { group, state, members, lag, trouble }
        });
        ConsumersBody { topic, items: items.collect(), not_asked: found.not_asked, observed_at: at, trouble }
    }
}
