//! `/ops/decisions`: who decided what, when and why.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::IntoParams;

use super::calls::desk;
use super::model::{ActionWord, DecisionPageBody};
use super::paging::Page;
use crate::api::Api;
use crate::api::parameters::Parameters;
use crate::api::problem::{Problem, ProblemBody};
use crate::domain::action::Action;
use crate::repair::request::DecisionFilter;

/// The parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `list`")]
pub(super) struct DecisionParameters {
    /// Of this view; the first one if left out.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    view: Option<String>,
    /// About this key.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    key: Option<String>,
    /// By this actor.
    #[param(min_length = 1, max_length = 256, pattern = "^[^\\x00]+$", required = false)]
    actor: Option<String>,
    /// Of this kind.
    #[param(inline, required = false)]
    action: Option<ActionWord>,
    /// Decisions on a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: Option<u32>,
    /// A position, taken unchanged from a `Link` header, with the same filters.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$", required = false)]
    cursor: Option<String>,
}

/// Who decided what?
///
/// Every decision ever made about events of the view, the newest first. They are never changed or deleted. Follow
/// `Link: rel="next"`.
#[utoipa::path(get, path = "/ops/decisions", operation_id = "list_decisions", tag = "operations", params(DecisionParameters), responses(
    (status = 200, description = "One page", body = DecisionPageBody, headers(
        ("Link" = String, description = "RFC 8288 links `first` and `next`; no `next` on the last page"),
    )),
    (status = 400, description = "A parameter or the cursor is not usable", body = ProblemBody<'static>, content_type = "application/problem+json"),
    (status = 404, description = "No such view here", body = ProblemBody<'static>, content_type = "application/problem+json"),
))]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let names = ["view", "key", "actor", "action", "pageSize", "cursor"];
    let mut parameters = Parameters::parse(request.query_string(), &names);
    let desk = desk(&api, &mut parameters);
    let (key, actor) = (parameters.id("key"), parameters.id("actor"));
    let action = action_of(&mut parameters);
    let filter = DecisionFilter { key, actor, action };
    let filters = [
        ("view", desk.as_ref().ok().map(|desk| desk.view.to_owned())),
        ("key", filter.key.clone()),
        ("actor", filter.actor.clone()),
        ("action", filter.action.map(|action| action.as_str().to_owned())),
    ];
    let page = Page::take(parameters, &api.state.settings, ("/ops/decisions", "-id"), &filters)?;
    let mut items = desk?.list_decisions(&filter, page.after_id()?, page.limit).await?;
    let link = page.link(&mut items, |decision| (String::new(), decision.id.to_string()));
    let items = items.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().insert_header((header::LINK, link)).json(DecisionPageBody { items, page_size: page.limit }))
}

fn action_of(parameters: &mut Parameters) -> Option<Action> {
    let word = parameters.one("action")?;
    let action = word.parse().ok();
    if action.is_none() {
        let known = Action::ALL.map(Action::as_str).join(", ");
        parameters.reject("action", &word, &format!("must be one of {known}"));
    }
    action
}
