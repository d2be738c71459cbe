// Writes docs/reference/{cluster.xml,userconfig.xml,errors,refusals,faults}.md from the annotations of the schemas,
// the registry of errors and the fault table. `node tools/docs.mjs` after `npm run build`; a test compares.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { errorRegistry } from '../dist/src/errors.js';
import { refusalErrors } from '../dist/src/errors/refusal.js';
import { schemaOf } from '../dist/src/config/schema.js';
import { faultReference } from './docs-faults.mjs';

const root = new URL('../', import.meta.url);
const note = '<!-- Written by tools/docs.mjs; change the source, not this file. -->';

const clusterExample = `<cluster>
  <lans pulse="50ms" slost_count="4">
    <lan name="office" command="on">
      <node name="web1" addr="10.0.0.1"/>
      <node name="web2" addr="10.0.0.2"/>
    </lan>
    <lan name="private">
      <node name="web1" addr="192.168.7.1"/>
      <node name="web2" addr="192.168.7.2"/>
    </lan>
  </lans>
</cluster>`;

const moduleExample = `<safe>
  <macro name="VIP" value="10.0.0.100"/>
  <service mode="farm" maxloop="3">
    <farm>
      <lan name="office"/>
      <ready kind="http" port="80" path="/health"/>
    </farm>
    <vip>
      <interface_list>
        <interface>
          <virtual_interface type="vmac_invisible">
            <virtual_addr addr="%VIP%"/>
          </virtual_interface>
        </interface>
      </interface_list>
      <loadbalancing_list>
        <group name="Web">
          <cluster>
            <host name="web1" power="2"/>
            <host name="web2" power="1"/>
          </cluster>
          <rule port="80" proto="tcp" filter="on_port"/>
          <rule port="443" proto="tcp" filter="on_addr"/>
        </group>
      </loadbalancing_list>
    </vip>
    <user/>
  </service>
</safe>`;

const durations = `Times are a whole number and a unit: d, h, m, s or ms. A number without a unit is in the attribute's own
unit, as in SafeKit, and a unit smaller than the own one is refused; the column "values" names the units
that an attribute takes. \`xsi:noNamespaceSchemaLocation\` on the root element makes an editor complete
from the schema.`;

/** A Markdown table cell; code between backticks needs no escapes but for the bar. */
function cell(text) {
  return text
    .split('`')
    .map((part, index) =>
      index % 2 === 1 ? part : part.replaceAll('<', '&lt;').replaceAll('>', '&gt;'),
    )
    .join('`')
    .replaceAll('|', '\\|');
}

function attributeRow(attribute) {
  const values =
    attribute.values.length > 0
      ? attribute.values.map((v) => `\`${v}\``).join(', ')
      : cell(attribute.wanted);
  const preset = attribute.required
    ? 'required'
    : attribute.preset === null
      ? ''
      : `\`${cell(attribute.preset)}\``;
  return `| \`${attribute.name}\` | ${values} | ${preset} | ${cell(attribute.text)} |`;
}

function occurrence(rule) {
  if (rule.max === 1) return rule.min === 0 ? 'Optional.' : 'Once.';
  return rule.min === 0 ? 'Any number of times.' : 'Once or more.';
}

function elementSections(rule, path) {
  const here = [...path, rule.name];
  const heading = here.map((name) => `&lt;${name}&gt;`).join(' ');
  const lines = [`### ${heading}`, ''];
  lines.push(`${path.length === 0 ? '' : `${occurrence(rule)} `}${cell(rule.text)}`, '');
  if (rule.attributes.size > 0) {
    lines.push('| attribute | values | default | meaning |', '|---|---|---|---|');
    for (const attribute of rule.attributes.values()) lines.push(attributeRow(attribute));
    lines.push('');
  }
  for (const child of rule.children.values()) lines.push(...elementSections(child, here));
  return lines;
}

function fileReference(name, title, where, example) {
  const schema = schemaOf(name);
  return [
    note,
    `# ${title}`,
    '',
    schema.text,
    '',
    `${where} Schema: \`schema/${name}.xsd\`.`,
    '',
    '```xml',
    example,
    '```',
    '',
    durations,
    '',
    '## Elements',
    '',
    ...elementSections(schema.root, []),
  ].join('\n');
}

function errorReference() {
  const areas = new Map();
  for (const code of Object.keys(errorRegistry).toSorted()) {
    const area = code.split('-').slice(0, 2).join('-');
    areas.set(area, [...(areas.get(area) ?? []), code]);
  }
  const lines = [note, '# Errors', ''];
  lines.push(
    'Every error of Holdfast has a code. Words in braces stand for what the case at hand puts there.',
    '',
  );
  for (const [area, codes] of areas) {
    lines.push(`## ${area}`, '', '| code | error | what to do |', '|---|---|---|');
    for (const code of codes) {
      const { sentence, hint } = errorRegistry[code];
      lines.push(`| ${code} | ${cell(sentence)} | ${cell(hint)} |`);
    }
    lines.push('');
  }
  return lines.join('\n');
}

const refusalGroups = [
  [101, 'A secondary that does not take over'],
  [110, 'A server that waits, and does not become primary'],
  [130, 'Orders that are not carried out'],
  [140, 'What holds while it runs'],
  [160, 'What ended the service, or its start'],
];

const numberOf = (code) => Number(code.slice(-3));

function refusalReference() {
  const lines = [note, '# Refusals', ''];
  lines.push(
    'Holdfast never declines without saying why. A mirror that decides for itself says it in `holdfast why` (with the code and the next',
    'step), in `holdfast status`, and in the journal (`holdfast events`); a command that is refused says it at once. Words in braces stand for what',
    'the case at hand puts there. What the states mean: [concepts](../concepts/mirror.md).',
    '',
  );
  const codes = Object.keys(refusalErrors).toSorted();
  for (const [index, [first, title]] of refusalGroups.entries()) {
    const next = refusalGroups[index + 1]?.[0] ?? Number.POSITIVE_INFINITY;
    const own = codes.filter((code) => numberOf(code) >= first && numberOf(code) < next);
    lines.push(`## ${title}`, '', ...refusalTable(own));
  }
  const commands = Object.keys(errorRegistry)
    .filter((code) => errorRegistry[code].http === 409 && !(code in refusalErrors))
    .toSorted();
  lines.push('## Commands that are refused', '', ...refusalTable(commands));
  return lines.join('\n');
}

function refusalTable(codes) {
  const rows = codes.map((code) => {
    const { sentence, hint } = errorRegistry[code];
    return `| ${code} | ${cell(sentence)} | ${cell(hint)} |`;
  });
  return ['| code | what it says | next step |', '|---|---|---|', ...rows, ''];
}

/** The generated files: path from the root of the repository to text. */
export function renderDocs() {
  return new Map([
    [
      'docs/reference/cluster.xml.md',
      fileReference(
        'cluster',
        'cluster.xml',
        '`/etc/holdfast/cluster.xml`, the same on every node.',
        clusterExample,
      ),
    ],
    [
      'docs/reference/userconfig.xml.md',
      fileReference(
        'userconfig',
        'userconfig.xml',
        '`conf/userconfig.xml` of a module. `holdfast confcheck MODULE` checks it, `holdfast config MODULE` applies it.',
        moduleExample,
      ),
    ],
    ['docs/reference/errors.md', errorReference()],
    ['docs/reference/refusals.md', refusalReference()],
    ['docs/reference/faults.md', faultReference(note)],
  ]);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const [path, text] of renderDocs()) {
    const file = fileURLToPath(new URL(path, root));
    let before = null;
    try {
      before = readFileSync(file, 'utf8');
    } catch {
      // The first time there is none.
    }
    if (before !== text) {
      writeFileSync(file, text);
      process.stdout.write(`wrote ${path}\n`);
    }
  }
}
