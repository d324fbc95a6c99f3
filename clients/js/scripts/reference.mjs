// The reference of docs/client.md, made of the types: what index.ts exports, with its comments.

import { readFileSync } from 'node:fs';
import ts from 'typescript';

const NOTE = '<!-- Made by `npm run build --prefix clients/js` of its types and scripts/client.md there. -->\n\n';

/** The page: the text that was given, with the reference in place of its `{{reference}}`. */
export function reference(source, page) {
  const files = ['client.ts', 'channel.ts', 'errors.ts', 'types.ts', 'msgpack.ts'];
  const sections = files.flatMap((file) => sectionsOf(`${source}/${file}`));
  return NOTE + page.replace('{{reference}}', () => sections.join('\n').trim());
}

function sectionsOf(path) {
  const file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
  return file.statements.filter(isExported).filter((node) => node.name && comment(node)).map(section);
}

const isExported = (node) => node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);

/** The doc comment's text, without links' braces; none for what is internal. */
function comment(node) {
  const [doc] = node.jsDoc?.slice(-1) ?? [];
  if (!doc || doc.tags?.some((tag) => tag.tagName.text === 'internal')) return '';
  const text = typeof doc.comment === 'string' ? doc.comment : (doc.comment ?? []).map((part) => part.name?.getText() ?? part.text).join('');
  return text.replace(/\{@link ([^}]*)\}/g, '`$1`').replace(/\s*\n\s*/g, ' ').trim();
}

function section(node) {
  const name = node.name.text;
  const head = `### \`${ts.isFunctionDeclaration(node) ? signature(node) : name + typeParameters(node)}\`\n\n${comment(node)}\n`;
  if (ts.isTypeAliasDeclaration(node)) return `${head}\n${alias(node)}`;
  const members = (node.members ?? []).filter((member) => comment(member) && !isPrivate(member) && !ts.isConstructorDeclaration(member));
  if (name === 'Channel' || name === 'Client') return `${head}\n${members.map((one) => `- \`${signature(one)}\`  \n  ${comment(one)}`).join('\n')}\n`;
  if (members.length === 0) return head;
  return `${head}\n| member | type | |\n| --- | --- | --- |\n${members.map(row).join('\n')}\n`;
}

const isPrivate = (member) => member.name && ts.isPrivateIdentifier(member.name);

const typeParameters = (node) => (node.typeParameters ? `<${node.typeParameters.map((one) => one.name.text).join(', ')}>` : '');

/** A declaration without body and modifiers, on one line. */
function signature(node) {
  if (ts.isGetAccessor(node)) return `${node.name.getText()}: ${node.type.getText()}`;
  const text = node.getText().slice(0, node.body ? node.body.getStart() - node.getStart() : undefined);
  return text.replace(/^(export|readonly)?\s*(function )?/, '').replace(/\s*\n\s*/g, ' ').replace(/;$/, '').trim();
}

function row(member) {
  const optional = member.questionToken ? '?' : '';
  const type = member.type.getText().replace(/\s*\n\s*/g, ' ').replaceAll('|', '\\|');
  return `| \`${member.name.getText()}${optional}\` | \`${type}\` | ${comment(member)} |`;
}

/** Each alternative of a union with its own comment; any other type as it is. */
function alias(node) {
  const text = node.getText().replace(/^export /, '');
  return `\`\`\`ts\n${text}\n\`\`\`\n`;
}
