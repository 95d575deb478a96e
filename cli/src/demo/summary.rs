//! What is said of a game that was played.

use serde_json::json;

use super::{game::Game, play::Played};

/// One line of JSON.
pub(crate) fn json(game: &Game, played: &Played) -> String {
    let microseconds = |percent| played.ticks.percentile(percent).as_nanos() as f64 / 1e3;
    let summary = json!({
        "population": played.population,
        "generations": game.generations,
        "board_hash": played.hash.to_string(),
        "processes": game.processes,
        "tick_p50_us": microseconds(50),
        "tick_p99_us": microseconds(99),
        "generations_per_s": generations_per_s(game, played),
    });
    format!("{summary}\n")
}

/// Some lines for people.
pub(crate) fn text(game: &Game, played: &Played) -> String {
    format!(
        "population   {}\n\
         generations  {} in {:.1?}, {:.0} a second\n\
         a tick       p50 {:.1?}, p99 {:.1?}\n\
         processes    {}\n\
         board        {}, hash {}\n",
        played.population,
        game.generations,
        played.elapsed,
        generations_per_s(game, played),
        played.ticks.percentile(50),
        played.ticks.percentile(99),
        game.processes,
        game.size,
        played.hash,
    )
}

fn generations_per_s(game: &Game, played: &Played) -> f64 {
    if game.generations == 0 { 0.0 } else { f64::from(game.generations) / played.elapsed.as_secs_f64() }
}
