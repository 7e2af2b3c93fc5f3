// One version: where it comes from, what it was made of, what it measured, who serves it, and the
// answers that moved it most.

import { copier, draw, make } from '../dom.js';
import { word } from '../hints.js';
import { toInteraction, toVersion } from '../route.js';
import { chip, coloured } from '../tokens.js';
import { bytes, count, moment, number, plain, whole } from '../words.js';
import { BASES, facts, figures, grid, serving } from './parts.js';

export class Weights {
  constructor(known) {
    const { row } = known;
    const states = [
      known.served && ['good', 'served now'],
      known.trained && ['good', 'training goes on from it'],
      row.withdrawn && ['warn', 'withdrawn'],
    ].filter(Boolean);
    this.box = make(
      'div',
      { class: 'version' },
      make(
        'header',
        { class: 'head' },
        make('h3', {}, `Version ${known.version}`),
        states.map(([state, words]) => make('span', { class: 'badge', 'data-state': state }, words)),
        copier(() => JSON.stringify(known, null, 1), 'Copy all as JSON'),
      ),
      make(
        'div',
        { class: 'halves' },
        section('Lineage', lineage(known)),
        section('What it is', facts(identity(known)), figures(row.figures)),
        section('What it was made of', inputs(known)),
        section('Who serves it', serving(known.serving)),
      ),
      section('The answers that moved it most', movers(known)),
      known.steps.length ? section('Its steps', steps(known.steps)) : null,
      section('Canary', canary(known.canary)),
    );
  }
}

const section = (name, ...content) =>
  make('section', { class: 'panel' }, make('header', {}, make('h4', {}, name)), make('div', { class: 'body' }, content));

function identity({ row, model, keyframe, uri }) {
  return [
    ['model', model],
    ['kind', row.kind],
    ['size', row.bytes === null ? null : bytes(row.bytes)],
    ['made from', row.base === null ? null : chip(row.base)],
    ['keyframe', keyframe === null ? null : chip(keyframe)],
    ['published', moment(row.created_ms)],
    ['steps', whole(row.steps)],
    ['digest', row.digest ? make('code', {}, row.digest.slice(0, 16)) : null],
    ['bytes at', uri],
  ];
}

/** What was made from it above it, its ancestors below; a fork is said beside its version. */
function lineage({ version, ancestors, older, children }) {
  const line = ancestors.map(({ version: number }) => number);
  const item = (number, kind, more, here = false) =>
    make(
      'li',
      { class: here ? 'here' : null, 'aria-current': here ? 'true' : null },
      make('a', { class: 'node', href: toVersion(number) }, String(number)),
      make('span', { class: 'quiet' }, [kind, ...more].filter(Boolean).join(', ')),
    );
  const rows = ancestors.map((one) => {
    const others = one.children.filter((child) => child !== version && !line.includes(child));
    const fork = others.length ? `also led to ${others.join(', ')}` : null;
    return item(one.version, one.kind, [one.withdrawn && 'withdrawn', fork]);
  });
  return make(
    'ol',
    { class: 'lineage' },
    children.length ? null : make('li', { class: 'quiet' }, 'nothing was made from it yet'),
    [...children]
      .reverse()
      .map((child) => item(child.version, child.kind, [child.withdrawn && 'withdrawn'])),
    item(version, 'this one', [], true),
    rows,
    older ? make('li', { class: 'quiet' }, `${count(older, 'older version')} before`) : null,
  );
}

function inputs({ outcomes, objectives, ranges, first_feedback_ms, last_feedback_ms }) {
  const many = (parts) =>
    Object.entries(parts)
      .map(([name, some]) => `${whole(some)} ${plain(name)}`)
      .join(', ');
  const decided = ranges.reduce((sum, { start, end, held }) => sum + end - start - held.length, 0);
  return [
    facts([
      ['records decided', whole(decided)],
      ['became', many(outcomes)],
      ['trained by', many(objectives)],
      ['oldest feedback', first_feedback_ms ? moment(first_feedback_ms) : null],
      ['newest feedback', last_feedback_ms ? moment(last_feedback_ms) : null],
    ]),
    ranges.length
      ? make(
          'details',
          {},
          make('summary', {}, `Ranges of ${count(ranges.length, 'partition')}`),
          grid(
            'Ranges of trajectories',
            ['partition', 'from', 'to', 'held back'],
            ranges.map(({ partition, start, end, held }) => [partition, start, end, held.length].map(String)),
          ),
        )
      : null,
  ];
}

function movers({ movers: found, reward_mean }) {
  if (!found.length) return make('p', { class: 'quiet' }, 'No answer moved it.');
  const most = Math.max(...found.map(({ advantage }) => Math.abs(advantage.value))) || 1;
  return [
    reward_mean === null ? null : make('p', { class: 'quiet' }, `Mean reward of all: ${number(reward_mean, 3)}`),
    grid(
      'Answers by advantage',
      ['interaction', 'advantage', '', 'reward', 'objective', 'step'],
      found.map((one) => [
        one.interaction_id
          ? make('a', { href: toInteraction(one.interaction_id) }, one.interaction_id)
          : make('span', { class: 'quiet' }, `gone: ${one.partition}:${one.offset}`),
        word(`${one.advantage.value > 0 ? '+' : ''}${number(one.advantage.value, 3)}`, null, BASES[one.advantage.basis]),
        pull(one.advantage.value / most),
        one.reward === null ? null : number(one.reward, 3),
        one.objective,
        String(one.step),
      ]),
    ),
  ];
}

/** A bar from the middle: right pulls towards the answer, left away from it. */
function pull(share) {
  const size = Math.abs(share) * 50;
  return draw(
    'svg',
    { class: 'gauge pull', viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    draw('rect', { class: 'groove', width: 100, height: 8 }),
    draw('rect', { class: share < 0 ? 'away-from' : 'fill', x: share < 0 ? 50 - size : 50, width: size, height: 8 }),
  );
}

function steps(found) {
  return found.map((one) =>
    make(
      'div',
      {},
      make(
        'p',
        {},
        `Step ${one.step}: ${count(one.answers, 'answer')}`,
        one.lr === null ? '' : `, learning rate ${number(one.lr, 7)}`,
        one.reseeded ? ', went on from published weights' : '',
        make('span', { class: 'quiet' }, ` \u00b7 ${one.where.topic} ${one.where.partition}:${one.where.offset} \u00b7 torch ${one.torch ?? 'unknown'}`),
      ),
      figures(one.figures),
    ),
  );
}

function canary(known) {
  if (!known) return make('p', { class: 'quiet' }, 'It has none.');
  const logprobs = known.output.map(({ logprob }) => logprob).filter((one) => one !== null);
  const mean = logprobs.reduce((sum, one) => sum + one, 0) / (logprobs.length || 1);
  return [
    make(
      'p',
      { class: 'quiet' },
      `A fixed text of ${count(known.output.length, 'token')} after ${known.prompt.length}; ` +
        `mean logprob ${number(mean, 3)}. Engines check a swap by it.`,
    ),
    coloured(known.output),
  ];
}
