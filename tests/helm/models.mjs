// Validates objects of Istio, the Gateway API and the Prometheus Operator with their schemas.
//
//   node models.mjs NODE_MODULES < objects.json > problems.json
//
// The schemas allow unknown fields. TypeScript, which checks each object as a literal, rejects them.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "security.istio.io": "istio",
  "networking.istio.io": "istio",
  "gateway.networking.k8s.io": "gateway-api",
  "monitoring.coreos.com": "prometheus-operator",
};

const modules = resolve(process.argv[2]);
const objects = JSON.parse(readFileSync(0, "utf8"));
const problems = [];
const source = [];
for (const object of objects) {
  const [group, version] = object.apiVersion.split("/");
  const module = `@kubernetes-models/${PACKAGES[group]}/${group}/${version}`;
  const path = join(modules, module, "index.js");
  const Model = (await import(pathToFileURL(path)))[object.kind];
  try {
    new Model(object).validate();
  } catch (error) {
    problems.push(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
  const name = `Model${source.length}`;
  const { apiVersion: _, kind, ...rest } = object; // the class has these two
  source.push(`import { ${kind} as ${name} } from "${module}"; new ${name}(${JSON.stringify(rest)});`);
}
// Beside node_modules, where TypeScript looks for the packages.
const folder = mkdtempSync(join(dirname(modules), "check-"));
try {
  writeFileSync(join(folder, "objects.ts"), source.join("\n"));
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"];
  execFileSync(join(modules, ".bin", "tsc"), [...options, "objects.ts"], { cwd: folder, encoding: "utf8" });
} catch (error) {
  // `objects.ts(3,55): error …`: the line is the object.
  for (const line of error.stdout.split("\n").filter((line) => line.startsWith("objects.ts"))) {
    const object = objects[Number(line.match(/\((\d+),/)[1]) - 1];
    problems.push(`${object.kind} ${object.metadata.name}: ${line}`);
  }
  if (problems.length === 0) problems.push(String(error.stdout || error));
} finally {
  rmSync(folder, { recursive: true });
}
process.stdout.write(JSON.stringify(problems));
