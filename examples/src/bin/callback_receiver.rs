//! Receives the callbacks of a control plane and prints one readable line for each.
//!
//! ```text
//! callback_receiver --listen 127.0.0.1:3200
//! 09:30:00 job 018f… completed by worker-1 (#4) $0.0342, 4 actions
//! ```

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use clap::Parser;
use gh_core::domain::time::Timestamp;
use gh_core::domain::usd::Usd;
use serde::Deserialize;

/// Receives callbacks and prints them.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, env = "GH_RECEIVER_LISTEN", default_value = "127.0.0.1:3200")]
    listen: SocketAddr,
}

/// What is printed of a callback.
#[derive(Debug, Deserialize)]
struct Callback {
    job_id: String,
    status: String,
    sequence: u64,
    timestamp: Timestamp,
    worker_id: Option<String>,
    cost: Option<Cost>,
    error_code: Option<String>,
    result_summary: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Cost {
    total_cost_usd: Usd,
    action_count: u64,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = Router::new().fallback(post(receive));
    axum::serve(listener, router)
        .with_graceful_shutdown(async {
            if let Err(error) = gh_examples::asked_to_stop().await {
                eprintln!("signals cannot be listened for: {error}");
            }
        })
        .await
}

async fn receive(body: Bytes) -> StatusCode {
    match serde_json::from_slice(&body) {
        Ok(callback) => {
            println!("{}", line(&callback));
            StatusCode::OK
        }
        Err(error) => {
            println!("not a callback: {error}");
            StatusCode::UNPROCESSABLE_ENTITY
        }
    }
}

fn line(callback: &Callback) -> String {
    let time = callback.timestamp.to_datetime().format("%H:%M:%S");
    let worker = callback.worker_id.as_deref().unwrap_or("nobody");
    let mut line = format!("{time} job {} {} by {worker} (#{})", callback.job_id, callback.status, callback.sequence);
    if let Some(cost) = &callback.cost {
        let plural = if cost.action_count == 1 { "" } else { "s" };
        line.push_str(&format!(" ${}, {} action{plural}", cost.total_cost_usd, cost.action_count));
    }
    for note in [&callback.error_code, &callback.result_summary].into_iter().flatten() {
        line.push_str(": ");
        line.push_str(note);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_one_readable_line_with_every_digit_of_its_cost() {
        let callback: Callback = serde_json::from_str(
            r#"{"event_id":"e","sequence":4,"job_id":"j-1","status":"completed","worker_id":"worker-1",
                "timestamp":"2026-11-23T09:30:00Z","result_summary":"Submitted",
                "cost":{"total_cost_usd":0.034200001,"action_count":4,"total_tokens":15230}}"#,
        )
        .unwrap();
        assert_eq!(line(&callback), "09:30:00 job j-1 completed by worker-1 (#4) $0.034200001, 4 actions: Submitted");
    }

    #[test]
    fn a_job_that_nobody_held_has_neither_worker_nor_cost() {
        let callback: Callback = serde_json::from_str(
            r#"{"sequence":1,"job_id":"j-2","status":"failed","timestamp":"2026-11-23T09:30:00Z",
                "error_code":"WORKER_UNAVAILABLE"}"#,
        )
        .unwrap();
        assert_eq!(line(&callback), "09:30:00 job j-2 failed by nobody (#1): WORKER_UNAVAILABLE");
    }
}
