//! Bars of CPU time: ours beside what it is compared with, and a mark where the target is.

use super::picture::{Anchor, Picture, round_up};
use super::table::number;
use crate::figure::Figure;

const WIDTH: f64 = 820.0;
const LABELS: f64 = 300.0;
/// Room at the right for the longest value.
const VALUES: f64 = 120.0;
const TOP: f64 = 66.0;
const ROW: f64 = 30.0;
const BAR: f64 = 18.0;
/// Between rows that are not to be compared.
const GAP: f64 = 14.0;

/// A bar, or the space between two groups of them.
enum Row {
    Bar {
        label: &'static str,
        /// From left to right; the second one in a fainter colour.
        pieces: Vec<f64>,
        ours: bool,
        target: Option<f64>,
    },
    Gap,
}

/// The gateway beside other proxies.
pub(super) fn gateway(figures: &[Figure]) -> String {
    let value = |name: &str| value_of(figures, name);
    let gateway = value("gateway_cpu_us");
    let rest = |all: &str, part: &str| (value(all) - value(part)).max(0.0);
    let nginx = value("nginx_proxy_cpu_us");
    let asking = value("nginx_auth_request_cpu_us");
    let asking_and_stub = value("nginx_auth_request_and_stub_cpu_us");
    let rows = [
        peer("nginx, plain proxy", vec![nginx]),
        peer("minimal hyper proxy", vec![value("hyper_proxy_cpu_us")]),
        ours("Weir's gateway", vec![gateway], Some(1.35 * nginx)),
        Row::Gap,
        peer(
            "nginx with auth_request, its stub",
            vec![asking, rest("nginx_auth_request_and_stub_cpu_us", "nginx_auth_request_cpu_us")],
        ),
        ours(
            "Weir's gateway, its listener",
            vec![gateway, rest("gateway_and_listener_cpu_us", "gateway_cpu_us")],
            Some(asking_and_stub),
        ),
    ];
    draw("CPU time per request", "microseconds of CPU on one core; 64 connections, 200-byte answers", &rows)
}

/// Decisions beside their floors.
pub(super) fn listener(figures: &[Figure]) -> String {
    let value = |name: &str| vec![value_of(figures, name)];
    let target = |name: &str| figures.iter().find(|figure| figure.name == name)?.target;
    let embedded = |label: &'static str, name: &str| ours(label, value(name), target(name));
    let over_redis = |label: &'static str, all: &str, part: &str| {
        let (all_us, listener_us) = (value_of(figures, all), value_of(figures, part));
        ours(label, vec![listener_us, (all_us - listener_us).max(0.0)], target(all))
    };
    let rows = [
        peer("floor: stream, no decision", value("grpc_stream_floor_cpu_us")),
        embedded("embedded store, stream", "authrep_embedded_stream_cpu_us"),
        Row::Gap,
        peer("floor: a question a message", value("grpc_single_floor_cpu_us")),
        embedded("embedded store, a question a message", "authrep_embedded_single_cpu_us"),
        Row::Gap,
        peer("floor: unary gRPC, no decision", value("grpc_unary_floor_cpu_us")),
        embedded("embedded store, unary", "authrep_embedded_unary_cpu_us"),
        Row::Gap,
        peer("floor: INCRBY, pipelined", value("redis_incrby_cpu_us")),
        over_redis("listener, Redis: at random", "authrep_redis_cpu_us", "authrep_redis_listener_cpu_us"),
        over_redis(
            "listener, Redis: 16 of one application",
            "authrep_redis_hot_cpu_us",
            "authrep_redis_hot_listener_cpu_us",
        ),
    ];
    draw(
        "CPU time per decision",
        "microseconds of CPU on one core; authrep under three limits, 64 callers",
        &rows,
    )
}

fn value_of(figures: &[Figure], name: &str) -> f64 {
    figures.iter().find(|figure| figure.name == name).and_then(Figure::value).unwrap_or_default()
}

fn peer(label: &'static str, pieces: Vec<f64>) -> Row {
    Row::Bar { label, pieces, ours: false, target: None }
}

fn ours(label: &'static str, pieces: Vec<f64>, target: Option<f64>) -> Row {
    Row::Bar { label, pieces, ours: true, target }
}

fn draw(title: &str, subtitle: &str, rows: &[Row]) -> String {
    let largest = rows.iter().map(|row| match row {
        Row::Bar { pieces, target, .. } => pieces.iter().sum::<f64>().max(target.unwrap_or_default()),
        Row::Gap => 0.0,
    });
    let scale = (WIDTH - LABELS - VALUES) / round_up(largest.fold(1.0, f64::max));
    let height = |row: &Row| if matches!(row, Row::Gap) { GAP } else { ROW };
    let mut picture = Picture::new(WIDTH, TOP + rows.iter().map(height).sum::<f64>() + 20.0);
    picture.text("title", (20.0, 28.0), Anchor::Start, title);
    picture.text(
        "small",
        (20.0, 47.0),
        Anchor::Start,
        format!("{subtitle}. The mark is the target, a fainter part the second named."),
    );
    let mut y = TOP;
    for row in rows {
        if let Row::Bar { label, pieces, ours, target } = row {
            bar(&mut picture, y, label, pieces, *ours, scale);
            if let Some(target) = target {
                let x = LABELS + target * scale;
                let ends = ((x, y + 1.0), (x, y + ROW - 3.0));
                picture.line("target-edge", ends.0, ends.1);
                picture.line("target", ends.0, ends.1);
            }
        }
        y += height(row);
    }
    picture.finish()
}

fn bar(picture: &mut Picture, y: f64, label: &str, pieces: &[f64], ours: bool, scale: f64) {
    let classes = if ours { ["ours", "ours-too"] } else { ["peer", "peer-too"] };
    let base = y + ROW / 2.0 + 3.5;
    picture.text("", (LABELS - 12.0, base), Anchor::End, label);
    let mut x = LABELS;
    for (class, piece) in classes.into_iter().zip(pieces) {
        picture.rectangle(class, x, y + (ROW - BAR) / 2.0 - 1.0, piece * scale, BAR);
        x += piece * scale;
    }
    let total: f64 = pieces.iter().sum();
    let text = match pieces {
        _ if total == 0.0 => "not measured".to_owned(),
        [one] => number(*one),
        _ => {
            let pieces: Vec<String> = pieces.iter().map(|piece| format!("{piece:.1}")).collect();
            format!("{total:.1} = {}", pieces.join(" + "))
        }
    };
    picture.text("", (x + 10.0, base), Anchor::Start, text);
}
