//! Pages beside the API: the index, the explanation of each problem, metrics, the OpenAPI document and Swagger UI.

use std::sync::Arc;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::problem::{self, Code, Problem};
use super::{Api, ui, views_of};
use crate::board::Shown;
use crate::status::ViewState;
use crate::telemetry::metrics::Metrics;

const DOCS_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// `/`: where to go from here; for browsers that is the console.
pub async fn index(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    if ui::is_browser(request.headers()) {
        let mut response = ui::begin().await;
        response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
        return response;
    }
    let views: Vec<&str> = views_of(&api.state).iter().map(|status| status.view).collect();
    HttpResponse::Ok().insert_header((header::VARY, "Accept")).json(json!({
        "service": "streamview",
        "version": env!("CARGO_PKG_VERSION"),
        "views": views,
        "links": {
            "console": "/ui/",
            "docs": "/docs/",
            "openapi": "/openapi.json",
            "problems": "/problems",
            "lags": "/ops/lags",
            "consumer": "/ops/consumer",
            "held": "/ops/held",
            "deadLetters": "/ops/dead-letters",
            "decisions": "/ops/decisions",
            "ready": "/readyz",
            "live": "/livez",
            "metrics": "/metrics",
        },
        "collections": views.iter().map(|view| format!("/{view}")).collect::<Vec<_>>(),
    }))
}

/// The metrics of this process.
///
/// Prometheus' text format, version 0.0.4. Every known series is there from the start, at 0.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "All series", body = String, content_type = "text/plain; version=0.0.4"),
))]
pub async fn metrics(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let metrics = &api.state.metrics;
    let mut connections = [("idle", 0), ("in_use", 0), ("waiting", 0)];
    let apart = api.state.database.reads_apart().then_some(&api.state.ops_pool);
    for pool in [&api.state.pool].into_iter().chain(apart).map(|pool| pool.status()) {
        connections[0].1 += pool.available;
        connections[1].1 += pool.size.saturating_sub(pool.available);
        connections[2].1 += pool.waiting;
    }
    for (state, connections) in connections {
        metrics.pool_connections.with_label_values(&[state]).set(connections as i64);
    }
    let shown: Vec<Shown> = api.state.views.iter().map(|board| board.active()).collect();
    for Shown { status, metrics } in &shown {
        let current = status.snapshot().state.as_str();
        for state in ViewState::NAMES {
            metrics.consumer_state.with_label_values(&[status.view, state]).set(i64::from(state == current));
        }
    }
    let builds: Vec<Arc<Metrics>> = shown.into_iter().map(|shown| shown.metrics).collect();
    exposition(metrics, &builds)
}

/// What the process counts, and what `builds` count of their views, as Prometheus reads it.
pub(super) fn exposition(metrics: &Metrics, builds: &[Arc<Metrics>]) -> Result<HttpResponse, Problem> {
    let text = metrics.render(builds).map_err(|error| {
        tracing::error!(error = %error, "could not write the metrics");
        Problem::new(&problem::INTERNAL_ERROR, "The metrics could not be written")
    })?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text))
}

/// `/openapi.json`
pub async fn openapi(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(api.openapi.clone())
}

/// `/docs`: its files are relative to `/docs/`.
pub async fn docs_redirect() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish()
}

/// `/docs/…`: Swagger UI from this binary, no CDN. Its links are relative, as on all pages: a proxy may have put them all
/// under a prefix.
pub async fn docs(file: web::Path<String>) -> Result<HttpResponse, Problem> {
    let config = Arc::new(utoipa_swagger_ui::Config::from("../openapi.json").validator_url("none"));
    let served = utoipa_swagger_ui::serve(&file, config).map_err(|error| {
        tracing::error!(error = %error, "could not serve a file of the documentation");
        Problem::new(&problem::INTERNAL_ERROR, "The file could not be served")
    })?;
    let Some(served) = served else {
        return Err(Problem::new(&problem::NOT_FOUND, "The documentation has no such file"));
    };
    let mut response = HttpResponse::Ok();
    response.content_type(served.content_type);
    response.insert_header((header::CONTENT_SECURITY_POLICY, DOCS_SECURITY_POLICY));
    response.insert_header((header::CACHE_CONTROL, "public, max-age=3600"));
    if served.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(served.bytes.into_owned()))
}

/// `/problems`: every code.
pub async fn problems(api: web::Data<Api>) -> HttpResponse {
    let mut codes = api.problems.clone();
    codes.sort_by_key(|code| code.name);
    let lines = codes.iter().map(|code| {
        let (name, status, title) = (code.name, code.status.as_u16(), escape(code.title));
        format!("<li><a href=\"problems/{name}\"><code>{name}</code></a> ({status}): {title}</li>")
    });
    page("Problems", &format!("<h1>Problems</h1><ul>{}</ul>", lines.collect::<String>()))
}

/// `/problems/{code}`: what a code means and what to do.
pub async fn problem(api: web::Data<Api>, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let Some(code) = api.problems.iter().find(|code| code.name == name.as_str()) else {
        return Err(Problem::new(&problem::NOT_FOUND, "There is no problem of this name; /problems lists them"));
    };
    let Code { name, status, title, meaning, next_step } = code;
    let body = format!(
        "<h1>{}</h1><p><code>{name}</code>, HTTP {}</p><h2>What it means</h2><p>{}</p><h2>What to do</h2><p>{}</p>\
         <p><a href=\"../problems\">All problems</a></p>",
        escape(title),
        status.as_u16(),
        escape(meaning),
        escape(next_step),
    );
    Ok(page(title, &body))
}

fn page(title: &str, body: &str) -> HttpResponse {
    let title = escape(title);
    HttpResponse::Ok().content_type(ContentType::html()).insert_header((header::CACHE_CONTROL, "max-age=3600")).body(
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><body>{body}</body></html>"
        ),
    )
}

/// Text as HTML, with what stands between backticks as code.
fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let mut html = String::with_capacity(escaped.len());
    for (number, part) in escaped.split('`').enumerate() {
        match (number, number % 2) {
            (0, _) => {}
            (_, 1) => html.push_str("<code>"),
            _ => html.push_str("</code>"),
        }
        html.push_str(part);
    }
    html
}
