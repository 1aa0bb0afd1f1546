//! Promise: docs/ops.md lists every op that Burn can record, and says of each whether it is
//! trained.

use std::fs;
use std::path::Path;

use burn_ir::{
    ActivationOperationIr, BaseOperationIr, BoolOperationIr, DistributedOperationIr,
    FloatOperationIr, IntOperationIr, ModuleOperationIr, NumericOperationIr, OperationIr,
};

/// Enums with the names of their variants. With a variant that is not listed this does not compile,
/// so that no op of a new version of Burn is overlooked.
macro_rules! names {
    ($($of:ident { $($variant:ident),* $(,)? })*) => {{
        $({
            fn _all(op: &$of) {
                match op {
                    $($of::$variant { .. })|* => {}
                }
            }
        })*
        vec![$((stringify!($of), vec![$(stringify!($variant)),*])),*]
    }};
}

/// Every enum of ops, and the names of its ops, in Burn's order.
fn ops() -> Vec<(&'static str, Vec<&'static str>)> {
    names! {
        OperationIr {
            BaseFloat, BaseInt, BaseBool, NumericFloat, NumericInt, Bool, Int, Float, Module,
            Init, Custom, Drop, Distributed, Activation,
        }
        BaseOperationIr {
            Reshape, SwapDims, Permute, Flip, Expand, Unfold, Slice, SliceAssign, Select,
            SelectAssign, MaskWhere, MaskFill, Gather, Scatter, ScatterNd, GatherNd, Equal,
            EqualElem, RepeatDim, Cat, Cast, Empty, Ones, Zeros, NotEqual, NotEqualElem, All,
            Any, AllDim, AnyDim,
        }
        NumericOperationIr {
            Add, AddScalar, Sub, SubScalar, Div, DivScalar, Rem, RemScalar, Mul, MulScalar, Abs,
            Full, MeanDim, Mean, Sum, SumDim, SumDims, Prod, ProdDim, Greater, GreaterElem,
            GreaterEqual, GreaterEqualElem, Lower, LowerElem, LowerEqual, LowerEqualElem,
            ArgMax, ArgTopK, TopK, TopKWithIndices, ArgMin, Max, MaxDimWithIndices,
            MinDimWithIndices, Min, MaxDim, MinDim, MaxAbs, MaxAbsDim, Clamp, IntRandom, Powi,
            PowiScalar, CumSum, CumProd, CumMin, CumMax, Neg, Sign, ClampMin, ClampMax, Sort,
            SortWithIndices, ArgSort, Pad,
        }
        FloatOperationIr {
            Exp, Log, Log1p, Erf, PowfScalar, Sqrt, Cos, Cosh, Sin, Sinh, Tan, Tanh, ArcCos,
            ArcCosh, ArcSin, ArcSinh, ArcTan, ArcTanh, ArcTan2, Round, Floor, Ceil, Trunc,
            IntoInt, Matmul, Cross, Random, Recip, IsNan, IsInf, Quantize, Dequantize,
            GridSample2d, Powf, Hypot,
        }
        IntOperationIr {
            IntoFloat, BitwiseAnd, BitwiseAndScalar, BitwiseOr, BitwiseOrScalar, BitwiseXor,
            BitwiseXorScalar, BitwiseNot, BitwiseLeftShift, BitwiseLeftShiftScalar,
            BitwiseRightShift, BitwiseRightShiftScalar, Matmul,
        }
        BoolOperationIr {
            IntoFloat, IntoInt, Not, And, Or, Xor,
        }
        ModuleOperationIr {
            BatchNorm, Embedding, EmbeddingBackward, Linear, LinearXBackward,
            LinearWeightBackward, LinearBiasBackward, Conv1d, Conv1dXBackward,
            Conv1dWeightBackward, Conv1dBiasBackward, Conv2d, Conv2dXBackward,
            Conv2dWeightBackward, Conv2dBiasBackward, Conv3d, Conv3dXBackward,
            Conv3dWeightBackward, Conv3dBiasBackward, DeformableConv2d,
            DeformableConv2dBackward, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d,
            AvgPool1d, AvgPool2d, AvgPool1dBackward, AvgPool2dBackward, AdaptiveAvgPool1d,
            AdaptiveAvgPool2d, AdaptiveAvgPool1dBackward, AdaptiveAvgPool2dBackward,
            AdaptiveAvgPool3d, AdaptiveAvgPool3dBackward, MaxPool1d, MaxPool1dWithIndices,
            MaxPool1dWithIndicesBackward, MaxPool2d, MaxPool2dWithIndices,
            MaxPool2dWithIndicesBackward, Interpolate, InterpolateBackward, Attention, CtcLoss,
            CtcLossBackward, LayerNorm, Unfold4d, ConvTranspose1dWeightBackward,
            ConvTranspose1dBiasBackward, ConvTranspose2dWeightBackward,
            ConvTranspose2dBiasBackward, ConvTranspose3dWeightBackward,
            ConvTranspose3dBiasBackward,
        }
        ActivationOperationIr {
            Relu, ReluBackward, LeakyRelu, PRelu, Gelu, GeluBackward, Sigmoid, SigmoidBackward,
            HardSigmoid, LogSigmoid, LogSigmoidBackward, Softmax, LogSoftmax, Softmin,
        }
        DistributedOperationIr {
            AllReduce, SyncCollective,
        }
    }
}

/// A row of the table.
struct Row {
    name: String,
    trained: String,
}

/// The tables by the names of their enums.
fn tables() -> Vec<(String, Vec<Row>)> {
    let mut tables: Vec<(String, Vec<Row>)> = Vec::new();
    for line in read("docs/ops.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            tables.push((title.trim_matches('`').into(), Vec::new()));
        } else if line.starts_with("| `") {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, trained, how] = cells[..] else { panic!("{line}: not three cells") };
            assert!(!how.is_empty(), "{line}: it does not say how, or why not");
            let row = Row { name: name.trim_matches('`').into(), trained: trained.into() };
            tables.last_mut().expect("a table has a title").1.push(row);
        }
    }
    tables
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_tables_name_every_op_once_in_burns_order() {
    let found = tables();
    let found: Vec<(&str, Vec<&str>)> = found
        .iter()
        .map(|(of, rows)| (of.as_str(), rows.iter().map(|row| row.name.as_str()).collect()))
        .collect();
    for (found, expected) in found.iter().zip(&ops()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), ops().len(), "tables");
}

/// What src/capture/lower/ calls the enums.
const CALLED: [(&str, &str); 8] = [
    ("BaseOperationIr", "Base"),
    ("NumericOperationIr", "Numeric"),
    ("FloatOperationIr", "Float"),
    ("IntOperationIr", "Int"),
    ("BoolOperationIr", "BoolOperationIr"),
    ("ModuleOperationIr", "Module"),
    ("ActivationOperationIr", "Recorded"),
    ("DistributedOperationIr", "DistributedOperationIr"),
];

#[test]
fn an_op_is_trained_exactly_where_the_lowering_has_an_arm_for_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capture/lower");
    let files = fs::read_dir(folder).expect("the folder can be read");
    let code: String = files.map(|file| read(file.expect("it can be read").path())).collect();
    for (of, rows) in tables() {
        for Row { name, trained } in rows {
            let is_trained = match trained.split(' ').next() {
                Some("yes") => true,
                Some("no") => false,
                _ => panic!("{of}::{name}: neither yes nor no: {trained}"),
            };
            if let Some((_, called)) = CALLED.iter().find(|(ir, _)| *ir == of) {
                let has_arm = code.contains(&format!("{called}::{name}("));
                assert_eq!(is_trained, has_arm, "{of}::{name}");
            }
        }
    }
}
