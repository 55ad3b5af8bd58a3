// What each rule means, in words for who stands at the machine.

import { t } from "./language.js";

// Western Electric, Statistical Quality Control Handbook (1956); Nelson, Journal of Quality Technology 16 (1984).
const MEANING = {
  1: "one value beyond a control limit",
  2: "two of three values beyond 2σ on one side",
  3: "four of five values beyond 1σ on one side",
  4: "eight values in a row on one side of the centre line",
  "nelson-1": "one value beyond a control limit",
  "nelson-2": "nine values in a row on one side of the centre line",
  "nelson-3": "six values in a row rising or falling",
  "nelson-4": "fourteen values in a row going up and down in turn",
  "nelson-5": "two of three values beyond 2σ on one side",
  "nelson-6": "four of five values beyond 1σ on one side",
  "nelson-7": "fifteen values in a row within 1σ: they vary too little",
  "nelson-8": "eight values in a row beyond 1σ, on either side",
  ewma: "the weighted average drifted beyond a control limit",
  cusum: "the sum of small deviations grew beyond a control limit",
  spread: "the values within a sample spread too much or too little",
  t2: "the signals together are where they never were",
  spe: "the signals no longer move together as they did",
  lower: "on its way to the lower specification limit",
  upper: "on its way to the upper specification limit",
  stuck: "the sensor repeats one value",
  flat: "the sensor hardly varies",
  saturated: "the sensor stands at the end of its range",
  quantised: "the sensor knows few values only",
  spiking: "the sensor jumps for single readings",
  silent: "the sensor has gone silent",
  drifting: "the sensor drifts away from its twin",
};

const ADVICE = {
  1: "Look at this part, and at what happened at that moment: tool, lot, hand, setting.",
  4: "The level has shifted: look for what changed where the run begins.",
  "nelson-3": "Something wears, heats or clogs: plan its change before the limit is reached.",
  ewma: "A small lasting change: it began before this point, where the line left the centre.",
  cusum: "A small lasting change: it began before this point, where the sum began to grow.",
  spread: "The process is less uniform than it was: look at clamping, play, material.",
  stuck: "Check the sensor and its cable; this says nothing about the process.",
};
const SAME = { "nelson-1": 1, 2: 4, 3: 4, "nelson-2": 4, "nelson-5": 4, "nelson-6": 4, flat: "stuck", saturated: "stuck", quantised: "stuck", spiking: "stuck", silent: "stuck", drifting: "stuck" };

/** A rule in words; an unknown one keeps its name. */
export const rule = (name) => (MEANING[name] ? t(MEANING[name]) : `${t("rule")} ${name}`);

/** What to look for, if there is something general to say. */
export const advice = (name) => {
  const words = ADVICE[name] ?? ADVICE[SAME[name]];
  return words ? t(words) : "";
};
