//! `POST /ops/orders/{orderId}/rebuild`: one key's rows are made anew, and put in the place of those that are there.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::calls::why;
use super::operations::{desk_of, read};
use super::verify::{ValuesBody, basis};
use crate::api::Api;
use crate::api::body::Body;
use crate::api::parameters::encode;
use crate::api::problem::Problem;
use crate::domain::verification::Basis;
use crate::repair::mend::{Mend, MendedBuild, MendedKey};
use crate::repair::model::Spelled;

/// What a key is mended with.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "documentation; read by `mend`")]
pub struct MendRequest {
    /// Why, for those who ask later.
    #[schema(min_length = 1, max_length = 500, pattern = "\\S", example = "a total was changed by hand, OPS-311")]
    reason: String,
    /// Who asks; where callers log in, for whom.
    #[schema(required = false, min_length = 1, max_length = 256)]
    actor: String,
    /// By what it is told what the rows should be: the builds' own `ledger`, or the `log`.
    #[schema(required = false, default = "ledger", pattern = "^(ledger|log)$")]
    from: String,
}

/// What was mended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Mended)]
pub struct MendedBody {
    /// Name of the view.
    #[schema(example = "orders")]
    pub view: &'static str,
    /// The key.
    #[schema(example = "order-275")]
    pub key: String,
    /// By what.
    #[schema(example = "ledger")]
    pub from: &'static str,
    /// Every build that has the key.
    pub builds: Vec<MendedBuildBody>,
    /// What it means.
    pub detail: String,
    /// The view's row of the key.
    #[schema(example = "/orders/order-275")]
    pub href: String,
}

/// A build in which a key was to be mended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MendedBuild)]
pub struct MendedBuildBody {
    /// Its number.
    #[schema(minimum = 1)]
    pub build: i32,
    /// Whether readers read it.
    pub active: bool,
    /// The last number that the key has consumed there; null if it was not mended.
    #[schema(required)]
    pub last_event_sequence: Option<i64>,
    /// What was changed, from `old` to `new`, at most 100 values: `totalNet`, `items[2]`, `events[7]`. Empty: nothing was
    /// wrong.
    pub changed: BTreeMap<String, ValuesBody>,
    /// How many values more were changed.
    #[schema(minimum = 0)]
    pub more: u64,
    /// Why it was not mended; null if it was.
    #[schema(required)]
    pub not_mended: Option<NotMendedBody>,
}

/// Why a build was not mended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotMended)]
pub struct NotMendedBody {
    /// A stable name, as of `not_mendable`.
    #[schema(example = "history_incomplete")]
    pub reason: &'static str,
    /// In words.
    pub detail: String,
}

impl From<&MendedBuild> for MendedBuildBody {
    fn from(mended: &MendedBuild) -> Self {
        let MendedBuild { build, is_active, done } = mended;
        let values = |(name, values): (&String, &crate::domain::comparison::Values)| {
            (name.clone(), ValuesBody { old: values.old.clone(), new: values.new.clone() })
        };
        let difference = done.as_ref().ok().map(|(_, difference)| difference);
        MendedBuildBody {
            build: *build,
            active: *is_active,
            last_event_sequence: done.as_ref().ok().map(|(last, _)| *last),
            changed: difference.map(|difference| difference.columns.iter().map(values).collect()).unwrap_or_default(),
            more: difference.map_or(0, |difference| difference.more),
            not_mended: done.as_ref().err().map(|(reason, detail)| NotMendedBody { reason, detail: detail.clone() }),
        }
    }
}

fn spell(mended: &MendedKey) -> Spelled {
    let builds: Vec<MendedBuildBody> = mended.builds.iter().map(Into::into).collect();
    let changed: usize = builds.iter().filter(|build| build.active).map(|build| build.changed.len()).sum();
    let detail = match changed {
        0 => "Nothing was wrong with the rows that readers read".to_owned(),
        1 => "One value that readers read was changed; the next event is folded upon it".to_owned(),
        _ => format!("{changed} values that readers read were changed; the next event is folded upon them"),
    };
    let body = MendedBody {
        view: mended.view,
        key: mended.key.clone(),
        from: mended.basis.as_str(),
        builds,
        detail,
        href: format!("/{}/{}", mended.view, encode(&mended.key)),
    };
    Spelled { code: 200, body: serde_json::to_value(body).expect("answers are plain data") }
}

/// Mends a key of a view, for the view's own route.
pub async fn mend(
    (api, view): (&Api, &str),
    key: String,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let (once, bytes) = read(request, payload).await?;
    let mut body = Body::parse(&bytes, &["reason", "actor", "from"])?;
    let why = why(&mut body, request);
    let basis = basis(&mut body, &[Basis::Ledger, Basis::Log]);
    body.finish()?;
    let desk = desk_of(api, view)?;
    let (answer, is_replayed) = desk.mend(&Mend { key, basis }, &why, once.as_deref(), spell).await?;
    // A key that waits may have what it waits for now.
    for board in api.state.views.iter().filter(|board| board.view == desk.view) {
        board.statuses().iter().for_each(|status| status.decided.notify_one());
    }
    let mut response = HttpResponse::build(StatusCode::OK);
    if is_replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    Ok(response.json(answer.body))
}
