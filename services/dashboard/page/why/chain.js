// One interaction from prompt to weights: asked, answered, said, rewarded, trained, served.

import { copier, make, said } from '../dom.js';
import { toInteraction, toVersion } from '../route.js';
import { chip, coloured, legend } from '../tokens.js';
import { bytes, count, millis, moment, number, plain } from '../words.js';
import { BASES, facts, figures, grid, message, serving, where } from './parts.js';

export class Chain {
  /** `masked`: texts and tokens are left out of `turn`. */
  constructor(turn, masked) {
    const title = make(
      'header',
      { class: 'head' },
      make('h3', {}, make('code', {}, turn.interaction_id)),
      copier(() => turn.interaction_id, 'Copy id'),
      copier(() => JSON.stringify(turn, null, 1), 'Copy all as JSON'),
    );
    const gone = turn.expired.length
      ? make('p', { class: 'notice' }, `Records of that time are gone from: ${turn.expired.join(', ')}.`)
      : null;
    this.box = make(
      'div',
      { class: 'chain' },
      title,
      gone,
      make(
        'ol',
        { class: 'rail' },
        link('Asked', asked(turn.asked, masked), turn.asked !== null),
        link('Answered', turn.answers.map((one) => answered(one, masked)), turn.answers.length > 0),
        link('Said', heard(turn, masked), turn.feedback.length > 0),
        link('Rewarded', rewarded(turn), turn.revisions.length > 0),
        link('Trained', trained(turn), turn.decisions.some(({ trained: step }) => step)),
        link('Weights', weights(turn), turn.decisions.some(({ into }) => into)),
      ),
    );
  }
}

function link(name, content, there) {
  const id = `chain-${name.toLowerCase()}`;
  return make(
    'li',
    { class: there ? 'there' : 'open', id },
    make('h4', {}, name),
    make('div', { class: 'body' }, content),
  );
}

const quiet = (text) => make('p', { class: 'quiet' }, text);

function asked(one, masked) {
  if (!one) return quiet('The prompt is not on the log (any more).');
  const messages = Array.isArray(one.messages) ? one.messages : [one.messages];
  const consent = { true: 'yes', false: 'no' }[String(one.learn)] ?? 'nobody said, which counts as no';
  return [
    messages.map((given) => message(given, masked)),
    facts([
      ['session', one.session],
      ['user', one.user],
      ['model', one.model],
      ['may be trained on', consent],
      ['task', one.task],
      ['group', one.group],
      ['channel', one.channel],
      ['prompt', count(one.tokens, 'token')],
      ...Object.entries(one.sampling).map(([name, value]) => [plain(name), value && said(value, 200)]),
      ...Object.entries(one.tags).map(([name, value]) => [`tag ${name}`, said(value, 200)]),
    ]),
    where(one.where),
  ];
}

function answered(one, masked) {
  const known = one.tokens.filter(({ logprob }) => logprob !== null);
  const mean = known.reduce((sum, { logprob }) => sum + logprob, 0) / (known.length || 1);
  const spelled = one.tokens.length > 0 && one.tokens.every(({ text }) => text !== null);
  return make(
    'div',
    { class: 'reply' },
    spelled ? coloured(one.tokens) : message(one.message, masked),
    legend(one.tokens),
    spelled || !one.tokens.length
      ? null
      : make(
          'details',
          {},
          make('summary', {}, `${count(one.tokens.length, 'token')} by ${masked ? 'version' : 'number'}`),
          coloured(one.tokens),
        ),
    one.error ? make('p', { class: 'wrong' }, `failed: ${one.error}`) : null,
    one.untrainable ? make('p', { class: 'wrong' }, `not trained on: ${one.untrainable}`) : null,
    facts([
      ['choice', one.choice || null],
      ['engine', one.engine],
      ['ended', one.finish_reason],
      ['first token', one.ttft_ms === null ? null : millis(one.ttft_ms)],
      ['all', one.total_ms === null ? null : millis(one.total_ms)],
      ['mean logprob', known.length ? number(mean, 3) : null],
    ]),
    where(one.where),
  );
}

/** What a feedback said, whichever of its fields holds it. */
export function value(record, masked) {
  if (record.action === 'retract') return ['takes back ', make('code', {}, record.replaces ?? '')];
  if (record.boolean !== null) return record.boolean ? 'yes' : 'no';
  if (record.number !== null) return number(record.number);
  if (record.category !== null) return said(record.category, 300);
  if (record.preferred_over !== null) return `better than ${record.preferred_over}`;
  if (!record.content && masked) return make('span', { class: 'quiet' }, 'left out');
  return said(record.content?.text ?? '', 1000);
}

function heard(turn, masked) {
  if (!turn.feedback.length) return quiet('Nobody said anything.');
  const rows = turn.feedback.map(({ partition, offset, time_ms, record, fate }) => {
    const who = record.grader ?? record.user ?? record.source;
    const ours = record.feedback_id === turn.feedback_id;
    return [
      make('span', { class: ours ? 'ours' : null }, record.metric ?? record.kind ?? ''),
      value(record, masked),
      record.interaction_id === null ? `the session, by ${who}` : who,
      fate ? outcome(fate.outcome, fate.reason) : outcome(null),
      `${moment(time_ms)}, ${partition}:${offset}`,
    ];
  });
  const also = turn.also.length
    ? make(
        'p',
        { class: 'quiet' },
        'About the whole session; it also counted for ',
        turn.also.map((id) => [make('a', { href: toInteraction(id) }, id), ' ']),
      )
    : null;
  return [grid('Feedback', ['metric', 'value', 'by', 'became', 'when and where'], rows), also];
}

const GOOD = new Set(['joined', 'corrected', 'trained', 'compensated', 'applied']);

/** What became of a record, in its colour. */
function outcome(name, reason = null) {
  if (name === null) return make('span', { class: 'quiet' }, 'in flight');
  const words = plain(name) + (reason ? ` (${plain(reason)})` : '');
  return make('span', { class: GOOD.has(name) ? 'good' : 'warn' }, words);
}

const RULES = {
  mean: 'the weighted mean of its terms',
  sum: 'the sum of its terms',
  clipped: 'its terms, clipped',
  default: 'the default of the spec',
  nothing: 'nothing: no term had a value',
};

function rewarded(turn) {
  if (!turn.revisions.length) return quiet('It waits for feedback, or may not be trained on.');
  return turn.revisions.map((one) =>
    make(
      'div',
      { class: 'revision' },
      make(
        'p',
        {},
        `Revision ${one.revision}${one.choice ? ` of answer ${one.choice}` : ''}: `,
        make('strong', {}, `reward ${number(one.reward, 3)}`),
        `, ${RULES[one.combined] ?? one.combined}`,
      ),
      one.components.length
        ? grid(
            'Terms of the reward',
            ['term', 'value', 'weight', 'note'],
            one.components.map((term) => [
              term.name,
              term.value === null ? null : number(term.value, 3),
              term.weight === null ? null : `\u00d7 ${number(term.weight, 3)}`,
              term.reason ? plain(term.reason) : '',
            ]),
          )
        : null,
      one.preferred_over.map((loser) => make('p', {}, `better than ${loser}`)),
      make(
        'p',
        { class: 'quiet' },
        `closed ${moment(one.time_ms)} \u00b7 spec ${one.reward_spec ?? 'unknown'} \u00b7 trajectory `,
        make('code', {}, one.trajectory_id),
        ' \u00b7 ',
        one.fate ? outcome(one.fate.outcome, one.fate.reason) : 'the trainer has not decided',
      ),
    ),
  );
}

function trained(turn) {
  if (!turn.decisions.length) {
    return quiet(turn.revisions.length ? 'The trainer has not decided yet.' : 'Not there yet.');
  }
  return turn.decisions.map(({ fate, trained: step, where: place }) =>
    make(
      'div',
      { class: 'decision' },
      make('p', {}, outcome(fate.outcome, fate.reason), step ? ` in step ${step.step}, as ${step.place + 1} of ${count(step.answers, 'answer')}` : ''),
      step ? stepOf(step) : null,
      where(step ? step.where : place),
    ),
  );
}

function stepOf(step) {
  const pull = step.advantage;
  return [
    facts([
      ['objective', step.objective],
      ['advantage', pull ? `${pull.value > 0 ? '+' : ''}${number(pull.value, 3)}` : null, pull && BASES[pull.basis]],
      ['reward', step.reward === null ? null : number(step.reward, 3)],
      ['before', step.before === null ? null : number(step.before, 3)],
      ['weight', step.weight === null ? null : number(step.weight, 3)],
      ['age', step.age_versions === null ? null : count(step.age_versions, 'version')],
      ['learning rate', step.lr === null ? null : number(step.lr, 7)],
    ]),
    figures(step.figures),
  ];
}

function weights(turn) {
  const found = turn.decisions.filter(({ into }) => into);
  if (!found.length) return quiet('No version has come of it yet.');
  return found.map(({ into, serving: engines }) =>
    make(
      'div',
      {},
      make(
        'p',
        {},
        chip(into.version),
        ` ${into.kind}, ${bytes(into.bytes)}, published ${moment(into.created_ms)}`,
        into.withdrawn ? make('span', { class: 'warn' }, ', withdrawn') : null,
        ' ',
        make('a', { href: toVersion(into.version) }, 'what moved it'),
      ),
      serving(engines),
    ),
  );
}
